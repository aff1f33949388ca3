"""What decides a job's results, so that one output never holds those of two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipemill.errors import ConfigError

from ..config import hf_dataset
from ..config.job import Job
from .user_code import digest_class

_BLOCK = 2**20
# What the model's folder may decide, and what was computed where a fingerprint does not say it.
UNSAID = {"pooling": "mean", "function_to_apply": "transformers' own"}


def fingerprint_fields(
    job: Job, task: str, dtype: str, weights: str, followed: Mapping[str, str]
) -> dict[str, Any]:
    """By name, so that a difference can be named. `weights` is a digest of the model's files.

    followed: what decides the results because the model's folder says so.
    """
    decides = {
        "task": task,
        "model": weights,
        "model.dtype": dtype,
        **({"model.engine": job.model.engine} if job.model.engine != "auto" else {}),
        "parameters": job.parameters,
        "input.columns": job.input.columns,
        "input.limit": job.input.limit,
        "input.dataset": hf_dataset.fingerprint(job.input.path),
        "output.keep": job.output.keep,
        "output.on_error": job.output.on_error,
        **_own_class(job),
        **({"input.schema": job.input.schema} if job.input.schema else {}),
        **({"input.encoding": job.input.encoding} if job.input.encoding else {}),
        **followed,
        **({"output.schema": job.output.schema} if job.output.schema else {}),
        "transformers": version("transformers"),
        "torch": version("torch"),
    }
    return json.loads(json.dumps(decides))  # as it will be read again


def _own_class(job: Job) -> dict[str, Any]:
    if job.pipeline_class is None:
        return {}
    code = digest_class(job.pipeline_class)
    return {"pipeline_class": job.pipeline_class, "code of pipeline_class": code}


def fingerprint(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_fingerprint(record: dict[str, Any], new: dict[str, Any], job: Job, output: str) -> None:
    """Raises ConfigError that names what changed.

    record: of the output's job; what decides its results is held against `new`.
    """
    old = record["decides"]
    unsaid = {name: repr(value) for name, value in UNSAID.items()}
    then = {**unsaid, **_named(old, record["job"])}
    now = {**unsaid, **_named(new, job.model_dump())}
    changed = [
        f"{name} ({then.get(name)} then, {now.get(name)} now)"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{output} holds the results of another job: {'; '.join(changed)}. "
            "Give this one another output, or run it as it was"
        )


def _named(decides: dict[str, Any], job: dict[str, Any]) -> dict[str, str]:
    """Each thing as a user knows it: what is only a digest, beside its path."""
    shown = {name: repr(value) for name, value in decides.items()}
    paths = {
        "model": (job.get("model") or {}).get("path"),
        "code of pipeline_class": job.get("pipeline_class"),
    }
    for name, path in paths.items():
        if path and decides.get(name) is not None:
            shown[name] = f"{path}, digest {decides[name]}"
    return shown


def digest_folder(folder: Path) -> str:
    """Of the names and bytes of all files in a model's folder, hidden ones left out."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts):
            whole.update(f"{inner.as_posix()}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    whole.update(block)
    return whole.hexdigest()[:16]
