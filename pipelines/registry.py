"""Which task answers to which name. Knowing a task imports neither torch nor transformers."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

_TASKS = {
    "feature-extraction": "feature_extraction:FeatureExtraction",
    "fill-mask": "fill_mask:FILL_MASK",
    "text-classification": "text_classification:TextClassification",
    "token-classification": "token_classification:TOKEN_CLASSIFICATION",
    "zero-shot-classification": "zero_shot_classification:ZeroShotClassification",
}
_ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}


def task_names() -> list[str]:
    return sorted(_TASKS)


def find_task(name: str) -> Any:
    """The task of that name: `inputs` and `parameters`, and callable with a loaded pipeline.

    Raises LookupError with the nearest name.
    """
    home = _TASKS.get(_ALIASES.get(name, name))
    if home is None:
        near = get_close_matches(name, [*_TASKS, *_ALIASES], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(task_names())}"
        raise LookupError(f"no task {name!r}; {hint}")
    module, attribute = home.split(":")
    return getattr(import_module(f"pipemill.pipelines.{module}"), attribute)
