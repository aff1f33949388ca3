"""Make `transformers.pipeline` find the pipeline of a restored task by its name.

transformers 5 looks a name up in three places before its registry: a table of removed tasks, which
it refuses; a function that turns `image-to-text` into another task; and the registry's
`check_task`, which no longer knows language pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any


def allow_tasks(names: Iterable[str]) -> None:
    """Make transformers neither refuse nor rename these tasks."""
    from transformers import pipelines

    names = frozenset(names)
    for name in names:
        getattr(pipelines, "REMOVED_TASKS", {}).pop(name, None)
    if "image-to-text" not in names or not hasattr(pipelines, "_resolve_deprecated_task"):
        return
    resolve = pipelines._resolve_deprecated_task

    @wraps(resolve)
    def resolve_others(task: str) -> str:
        return task if task == "image-to-text" else resolve(task)

    pipelines._resolve_deprecated_task = resolve_others


def find_language_pairs(registry: Any) -> None:
    """Make `registry.check_task` find `translation` by names like `translation_en_to_de`."""
    check = registry.check_task

    @wraps(check)
    def check_task(task: str) -> tuple[str, dict, Any]:
        if not task.startswith("translation_") or task in registry.supported_tasks:
            return check(task)
        name, *languages = task.split("_")
        if len(languages) != 3 or languages[1] != "to":
            raise KeyError(f"Invalid translation task {task}, use 'translation_XX_to_YY' format")
        return name, registry.supported_tasks[name], (languages[0], languages[2])

    registry.check_task = check_task
