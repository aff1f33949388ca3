"""Find the libraries that a job needs and that are not installed, before its model is read.

They are looked up without an import, in less than a second. A library that is installed but broken
fails on the worker that imports it.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pipemill.pipelines.engines.registry import find_engine
from pipemill.pipelines.loading.extras import advise_install, find_package, is_installed
from pipemill.pipelines.loading.model_needs import Need, needs_of_model
from pipemill.pipelines.media import NEEDED
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError

from ..execution.progress import log
from ..execution.ray_address import joins_other_machines

if TYPE_CHECKING:
    from ..config.job import Job
    from .resolve_task import ResolvedTask

# Programs, not modules, with Debian's packages of them.
_PROGRAMS = {"tesseract": "tesseract-ocr", "espeak-ng": "espeak-ng"}


def check_requirements(
    job: Job, task: ResolvedTask, columns: Iterable[str], placement: str
) -> None:
    """Raise ConfigError for libraries that a job needs and this machine does not have.

    If the job runs on a Ray with other machines, nothing is raised: its workers may have what this
    machine lacks, and report what they lack.

    Args:
        job: the job.
        task: its task and model.
        columns: the task's columns that the job reads; required ones are always included.
        placement: where the job runs; previews and verifications run "local".
    """
    missing = [*_find_missing_engine(job), *find_missing_libraries(task, columns)]
    required = [need for need in missing if not need.instead]
    if not missing or (placement != "local" and joins_other_machines(job.actors.cluster)):
        return
    if required:
        raise ConfigError(_format_message(job.task, required))
    _print_once(f"{_format_message(job.task, missing)}. Without: {missing[0].instead}")


def check_early_requirements(job: Job, task: ResolvedTask, placement: str) -> None:
    """Raise ConfigError for libraries that a job needs regardless of its input's columns.

    A column without media needs no library, and may make one unnecessary: all of them are taken to
    be in the input.
    """
    mapped = [name for name, column in job.input.columns.items() if column is not None]
    others = [column.name for column in task.spec.inputs if column.kind not in NEEDED]
    check_requirements(job, task, [*mapped, *others], placement)


@lru_cache(maxsize=16)
def _print_once(note: str) -> None:
    log(f"pipemill: {note}")


def find_missing_libraries(resolved: ResolvedTask, columns: Iterable[str]) -> list[Need]:
    """Return what a job needs and this machine does not have."""
    spec = resolved.spec
    read = {*columns, *(c.name for c in spec.inputs if c.required and not c.parameter)}
    needs = list(_list_column_needs(spec, read))
    if not resolved.is_user:  # only the columns of a user's pipeline are known
        needs += [Need(module.partition(".")[0], f"for {spec.name}") for module in spec.libraries]
        needs += needs_of_model(spec.name, read, replace(resolved.model, root=None))
    return [need for need in needs if not _is_available(need.module)]


def _find_missing_engine(job: Job) -> list[Need]:
    factory = find_engine(job.model.engine)
    if factory is None:
        return []
    modules = (*factory.modules, *(factory.graph.modules if factory.graph else ()))
    reason = f"for model.engine {job.model.engine}"
    return [Need(module, reason) for module in modules if not _is_available(module)]


def _list_column_needs(spec: TaskSpec, read: set[str]) -> Iterator[Need]:
    for column in spec.inputs:
        if column.name in read:
            for module in NEEDED.get(column.kind, ()):
                yield Need(module, f"to read the column {column.name!r}")


def _is_available(module: str) -> bool:
    if module == "espeak-ng":  # its library is what phonemizer looks for, in this order
        named = os.environ.get("PHONEMIZER_ESPEAK_LIBRARY")
        return bool(named or any(map(ctypes.util.find_library, ("espeak-ng", "espeak"))))
    return shutil.which(module) is not None if module in _PROGRAMS else is_installed(module)


def _format_message(task: str, missing: list[Need]) -> str:
    modules = dict.fromkeys(need.module for need in missing)
    reasons = {need.module: need.reason for need in reversed(missing)}
    parts = [
        f"{', '.join(_name_package(m) for m in modules if reasons[m] == reason)} {reason}"
        for reason in dict.fromkeys(reasons[m] for m in modules)
    ]
    libraries = [module for module in modules if module not in _PROGRAMS]
    ways = [advise_install(libraries)] if libraries else []
    ways += [f"apt-get install {_PROGRAMS[module]}" for module in modules if module in _PROGRAMS]
    return (
        f"{task} needs what is not installed here: {'; '.join(parts)}. On every machine of the "
        f"cluster: {'; '.join(ways)}"
    )


def _name_package(module: str) -> str:
    return f"the program {module}" if module in _PROGRAMS else find_package(module)
