"""The task of a job with its model: resolved once, and passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..config.job import Job
from .fingerprint import FIELD_DEFAULTS
from .model_conventions import ModelSays, read_conventions
from .resolve_task import resolve_task


@dataclass(frozen=True, kw_only=True)
class ResolvedTask:
    """What computes the rows of a job.

    Attributes:
        spec: the task.
        is_user: whether its pipeline is user code: a class, or code in the model folder.
        path, revision: of the model, as a worker loads it.
        conventions: what the model folder says about how the model is used.
    """

    spec: Any
    is_user: bool
    path: str
    revision: str | None = None
    conventions: ModelSays = field(default_factory=ModelSays)

    @property
    def model(self) -> tuple[str, str | None]:
        return self.path, self.revision

    def with_conventions(self, job: Job, decides: Mapping[str, Any] | None = None) -> ResolvedTask:
        """Read the conventions of the model. Raises ConfigError if they can't be followed.

        Args:
            decides: of an output, which may ignore them; see `conventions_for`.
        """
        return replace(self, conventions=read_conventions(job, self.spec, self.model, decides))

    def conventions_for(self, job: Job, decides: Mapping[str, Any]) -> ModelSays:
        """Return the conventions that an output follows: an older one ignores the model folder.

        Args:
            decides: what decides the results of the output; empty without an output.
        """
        if not decides or decides.keys() & FIELD_DEFAULTS.keys():
            return self.conventions
        return read_conventions(job, self.spec, self.model, decides)


def resolve_job_task(job: Job, model: tuple[str, str | None]) -> ResolvedTask:
    """Find the task of a job. Raises ConfigError.

    Args:
        model: the path and revision that a worker loads.
    """
    spec, is_user = resolve_task(job, model[0])
    return ResolvedTask(spec=spec, is_user=is_user, path=model[0], revision=model[1])
