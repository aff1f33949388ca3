"""job.json in the output: the job, what decides its results, and what its runs found out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pipemill.actors.storage.filesystem import make_absolute

import pipemill

if TYPE_CHECKING:
    from ..config.job import Job


_VERSIONS = ("transformers", "torch", "ray", "pyarrow")


@cache  # the long text of a package is parsed for each answer
def version(package: str) -> str:
    """Return the version of a package, which may be there on the workers only."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed here"


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What is stored of a job. Older outputs lack the fields that have defaults.

    Attributes:
        job: the job as it was written, `Job.model_dump()`, but with absolute paths of the input
            and of folders of models.
        decides: what decides its results, by name.
        fingerprint: of `decides`.
        versions: of libraries, when the output was started.
        created: when that was.
        retries: the settings of retries that differ from those of the job, by fingerprint.
        max_tokens: the token budgets that runs measured, by device ("cpu", "gpu").
        unknown: fields of newer versions, which stay when the record is written again.
    """

    job: Mapping[str, Any]
    decides: Mapping[str, Any]
    fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    retries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job, decides: Mapping[str, Any], fingerprint: str) -> JobRecord:
        """Make the record of a job that starts now."""
        fields = job.model_dump()
        # A relative path is another one in another folder.
        for model in (entry["model"] for entry in [fields, *fields.get("tasks", ())]):
            for key in ("path", "adapter"):
                named = model.get(key)
                # Otherwise a Hub name, which needs no current folder.
                if named is not None and os.path.isdir(os.path.expanduser(named)):
                    model[key] = make_absolute(named)
        path = fields["input"]["path"]
        fields["input"]["path"] = (
            make_absolute(path) if isinstance(path, str) else [make_absolute(one) for one in path]
        )
        return cls(
            job=fields,
            decides=decides,
            fingerprint=fingerprint,
            versions={
                "pipemill": pipemill.__version__,
                **{name: version(name) for name in _VERSIONS},
            },
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def task(self) -> str:
        """Return the name of the task, or the names of several."""
        return " + ".join(entry.get("name") or entry["task"] for _, entry in self.entries)

    @property
    def entries(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what the job says of each of its tasks, and what its fields in `decides` have
        before their names."""
        if not self.job.get("tasks"):
            return [("", self.job)]
        return [(f"{entry.get('name') or entry['task']}.", entry) for entry in self.job["tasks"]]

    @property
    def input_path(self) -> Any:
        """Return what the job names as its input: a path or several, None if unknown."""
        return (self.job.get("input") or {}).get("path")

    @property
    def keeps_dead_rows(self) -> bool:
        """Return whether parts hold a row of nulls for each dead row."""
        return self.job["output"]["on_error"] == "null"

    def token_budget(self, job: Job) -> int | None:
        """Return the tokens of a micro-batch that a run measured, if the job leaves them open."""
        return self.max_tokens.get(_describe_device(job)) if _is_open(job) else None

    def with_token_budget(self, job: Job, tokens: int | None) -> JobRecord:
        """Add the budget that most splits of a run settled on; None if there was none."""
        if tokens is None or not _is_open(job):
            return self
        return replace(self, max_tokens={**self.max_tokens, _describe_device(job): tokens})

    def with_retry(self, fingerprint: str, settings: Mapping[str, Any]) -> JobRecord:
        """Add the settings of a retry that differ from those of the job."""
        return replace(self, retries={**self.retries, fingerprint: settings})

    def to_json(self) -> bytes:
        fields = dict(vars(self))
        unknown = fields.pop("unknown")
        for name in ("retries", "max_tokens"):
            if not fields[name]:
                del fields[name]
        return json.dumps({**fields, **unknown}, indent=2, default=str).encode()

    @classmethod
    def from_json(cls, data: bytes) -> JobRecord:
        """Read the record. Raises ValueError, TypeError, LookupError if it is damaged."""
        fields = json.loads(data)
        known = cls.__dataclass_fields__.keys() - {"unknown"}
        for name in ("job", "decides"):
            _ = fields[name]
        return cls(
            # A field may be null in older outputs.
            **{name: fields[name] for name in known if fields.get(name) is not None},
            unknown={name: value for name, value in fields.items() if name not in known},
        )


def _is_open(job: Job) -> bool:
    return job.batching.max_tokens == "auto"


def _describe_device(job: Job) -> str:
    return "gpu" if job.actors.gpus_each else "cpu"
