"""The same job with another engine, to be measured beside it."""

from __future__ import annotations

from collections.abc import Iterable

from pipemill.errors import ConfigError

from ..config.job import Job
from ..config.load import build_job
from ..prepare import resolve_job


def with_engines(job: Job, names: Iterable[str]) -> dict[str, Job]:
    """Return the job with each of some engines, by the name to show.

    Args:
        names: of engines, each with its dtype after a colon if it is not the engine's default.

    Raises:
        ConfigError: for an engine that can't compute the job, or a job of several tasks.
    """
    jobs = {}
    for name in names:
        if job.tasks:
            labels = ", ".join(entry.label for entry in job.tasks)
            raise ConfigError(
                f"other engines are measured for one task, and the job has several ({labels}): "
                "give a job with one of them as task and model"
            )
        engine, _, dtype = name.partition(":")
        changes = [f"model.engine={engine}", f"model.dtype={dtype or 'auto'}"]
        other = build_job(job, changes, {}, {}, needs_output=False)
        resolve_job(other, "local", here=True)  # says now what is missing
        jobs[name.replace(":", " ")] = other
    return jobs
