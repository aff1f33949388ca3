"""Which libraries a job needs that are not installed: said before its model is read.

They are looked up without being imported, which takes no second. A library that is there but
broken is found by the worker that imports it.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache

from pipemill.pipelines.loading.extras import how_to_install, is_installed, package_of
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.loading.model_needs import Need, needs_of_model
from pipemill.pipelines.media import NEEDED
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError

from ..config.job import Job
from ..execution.ray_cluster import joins_other_machines
from .resolve_task import resolve_task

# Programs, not modules, with Debian's packages of them.
_PROGRAMS = {"tesseract": "tesseract-ocr", "espeak-ng": "espeak-ng"}


def check_requirements(
    job: Job, model: tuple[str, str | None], columns: Iterable[str], placement: str
) -> None:
    """Raise ConfigError for libraries that a job needs and this machine does not have.

    Where the job goes to a Ray that runs already, nothing is raised: its workers may have what
    this machine lacks, and say themselves what they lack.

    Args:
        job: the job.
        model: the path and revision that a worker loads.
        columns: the task's columns that the job reads; those it can't do without always count.
        placement: where the job runs; what previews and verifies runs "local".
    """
    lacking = missing_libraries(job, model, columns)
    missing = [need for need in lacking if not need.instead]
    if not lacking or (placement != "local" and joins_other_machines(job.actors.cluster)):
        return
    if missing:
        raise ConfigError(_message(job.task, missing))
    _say_once(f"{_message(job.task, lacking)}. Without: {lacking[0].instead}")


def check_early_requirements(job: Job, model: tuple[str, str | None], placement: str) -> None:
    """Raise ConfigError for libraries that a job needs regardless of its input's columns.

    A column that is no medium needs no library, and may make one needless: each counts as there.
    """
    spec, _ = resolve_task(job, model[0])
    named = [name for name, own in job.input.columns.items() if own is not None]
    perhaps = [column.name for column in spec.inputs if column.kind not in NEEDED]
    check_requirements(job, model, [*named, *perhaps], placement)


@lru_cache(maxsize=16)
def _say_once(note: str) -> None:
    print(f"pipemill: {note}", file=sys.stderr)


def missing_libraries(
    job: Job, model: tuple[str, str | None], columns: Iterable[str]
) -> list[Need]:
    """Return what a job needs and this machine does not have."""
    spec, own = resolve_task(job, model[0])
    read = {*columns, *(c.name for c in spec.inputs if c.required and not c.parameter)}
    needs = list(_needs_of_columns(spec, read))
    if not own:  # of the user's pipeline only the columns are known
        needs += [Need(module.partition(".")[0], f"for {spec.name}") for module in spec.libraries]
        needs += needs_of_model(spec.name, read, ModelFiles(*model))
    return [need for need in needs if not _is_there(need.module)]


def _needs_of_columns(spec: TaskSpec, read: set[str]) -> Iterator[Need]:
    for column in spec.inputs:
        if column.name in read:
            for module in NEEDED.get(column.kind, ()):
                yield Need(module, f"to read the column {column.name!r}")


def _is_there(module: str) -> bool:
    if module == "espeak-ng":  # its library is what phonemizer looks for, in this order
        named = os.environ.get("PHONEMIZER_ESPEAK_LIBRARY")
        return bool(named or any(map(ctypes.util.find_library, ("espeak-ng", "espeak"))))
    return shutil.which(module) is not None if module in _PROGRAMS else is_installed(module)


def _message(task: str, missing: list[Need]) -> str:
    modules = dict.fromkeys(need.module for need in missing)
    reasons = {need.module: need.reason for need in reversed(missing)}
    told = [
        f"{', '.join(_shown(m) for m in modules if reasons[m] == reason)} {reason}"
        for reason in dict.fromkeys(reasons[m] for m in modules)
    ]
    libraries = [module for module in modules if module not in _PROGRAMS]
    ways = [how_to_install(libraries)] if libraries else []
    ways += [f"apt-get install {_PROGRAMS[module]}" for module in modules if module in _PROGRAMS]
    return (
        f"{task} needs what is not installed here: {'; '.join(told)}. On every machine of the "
        f"cluster: {'; '.join(ways)}"
    )


def _shown(module: str) -> str:
    return f"the program {module}" if module in _PROGRAMS else package_of(module)
