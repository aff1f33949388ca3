"""The fields that decide a job's results, so that one output never holds results of two jobs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.pipelines.engines.registry import find_engine

from pipemill.errors import ConfigError

from ..output.job_record import JobRecord, version
from ..rows.held_rows import HeldRows
from .choose_engine import choose_dtype
from .user_code import digest_class

if TYPE_CHECKING:
    from ..config.job import Job
    from .resolve_task import ResolvedTask

_BLOCK = 2**20
# What a build of torch is for. Another suffix names its sources, as in 2.9.0a0+145a3a7.
_BUILD = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")
# Fields that the model's folder may decide, with what a fingerprint without them means.
FIELD_DEFAULTS = {"pooling": "mean", "function_to_apply": "transformers' own"}
# What all tasks of a job share.
_SHARED = (
    "input.limit", "input.dataset", "output.keep", "output.on_error", "input.schema",
    "input.encoding", "input.delimiter", "input.quotes", "output.schema", "transformers", "torch",
)  # fmt: skip


def decide_results(
    job: Job, task: ResolvedTask, weights: str, then: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields that decide a job's results; of several tasks each has its own.

    Args:
        job: the job.
        task: its task, and the others if it has several.
        weights: a digest of the first model's files.
        then: the fields of an output that has parts, of which the dtype holds; empty without.
    """
    if not task.steps:
        dtype = choose_dtype(job, task.spec, task.is_user, then.get("model.dtype"))
        fields = _list_fields(job, task.spec.name, dtype, weights, task.followed.decides)
        return _keep_torch(fields, then)
    fields = {"tasks": [step.entry.label for step in task.steps]}
    for step in task.steps:
        name, own = step.entry.label, step.task
        dtype = choose_dtype(step.job, own.spec, own.is_user, then.get(f"{name}.model.dtype"))
        every = _list_fields(step.job, own.spec.name, dtype, step.digest, own.followed.decides)
        fields |= {key: value for key, value in every.items() if key in _SHARED}
        fields |= {f"{name}.{key}": value for key, value in every.items() if key not in _SHARED}
        fields |= {f"{name}.name": step.entry.name, f"{name}.where": step.entry.where}
    return _keep_torch(fields, then)


def _keep_torch(fields: dict[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the build of torch that the output names, such as 2.13.0+cpu, if only that differs.

    A job may begin on CPUs and go on where there are GPUs.
    """
    old, new = (_BUILD.sub("", str(one.get("torch"))) for one in (then, fields))
    return {**fields, "torch": then["torch"]} if old == new else fields


def _list_fields(
    job: Job, task: str, dtype: str, weights: str, followed: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields that decide a job's results, by name, so that messages can name them.

    Args:
        job: the job.
        task: the name of its task.
        dtype: the dtype that the model is loaded in.
        weights: a digest of the model's files.
        followed: fields that decide the results because the model's folder says so.
    """
    given = job.parameters
    # Older outputs hold the vectors of tokens and patches as they were, also with `normalize`.
    scales_each = (
        job.pipeline_class is None
        and task.endswith("feature-extraction")
        and given.get("pooling") == "none"
        and given.get("normalize")
    )
    fields = {
        "task": task,
        "model": weights,
        "model.dtype": dtype,
        **_list_engine_fields(job),
        "parameters": job.parameters,
        "input.columns": job.input.columns,
        "input.limit": job.input.limit,
        "input.dataset": _identify_object(job.input.path),
        "output.keep": job.output.keep,
        "output.on_error": job.output.on_error,
        **_list_class_fields(job),
        **({"input.schema": job.input.schema} if job.input.schema else {}),
        **({"input.encoding": job.input.encoding} if job.input.encoding else {}),
        **({"input.delimiter": job.input.delimiter} if job.input.delimiter else {}),
        **({} if job.input.quotes else {"input.quotes": False}),
        **followed,
        **({"normalize of each vector": True} if scales_each else {}),
        **({"output.schema": job.output.schema} if job.output.schema else {}),
        "transformers": version("transformers"),
        "torch": version("torch"),
    }
    return json.loads(json.dumps(fields))  # as they are when they are read from the output


def _list_engine_fields(job: Job) -> dict[str, Any]:
    name = job.model.engine
    if name == "auto":
        return {}
    factory = find_engine(name)
    packages = factory.graph.modules[:1] if factory is not None and factory.graph else ()
    return {"model.engine": name, **{package: version(package) for package in packages}}


def _identify_object(path: object) -> str | None:
    """Return what tells the rows of an object from others; None for paths."""
    return path.identity if isinstance(path, HeldRows) else None


def _list_class_fields(job: Job) -> dict[str, Any]:
    if job.pipeline_class is None:
        return {}
    code = digest_class(job.pipeline_class)
    return {"pipeline_class": job.pipeline_class, "code of pipeline_class": code}


def hash_fields(fields: Mapping[str, Any]) -> str:
    """Return a short digest of the fields."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def hash_retry(fields: Mapping[str, Any], record: JobRecord) -> str:
    """Return the digest of a retry's fields; another one for options in another order.

    That of a job does not read their order: the parts of older outputs hold it.
    """
    digest = hash_fields(fields)
    then = {record.fingerprint: record.decides, **record.retries}.get(digest, fields)
    if not find_changed_fields({**record.decides, **then}, fields):
        return digest
    return hashlib.sha256(json.dumps([fields]).encode()).hexdigest()[:16]


def check_fingerprint(record: JobRecord, new: Mapping[str, Any], job: Job, output: str) -> None:
    """Raise ConfigError, with the fields that differ, for an output of another job.

    Args:
        record: the record of the job that the output holds.
        new: the fields of the new job.
        job: the new job.
        output: the output's path.
    """
    old = record.decides
    defaults = {n: repr(value) for n, value in {**FIELD_DEFAULTS, "input.quotes": True}.items()}
    then = {**defaults, **_describe_fields(old, record.job)}
    now = {**defaults, **_describe_fields(new, job.model_dump())}
    changed = [
        f"{name} ({then.get(name)} then, {now.get(name)} now)"
        for name in find_changed_fields(old, new)
    ]
    if changed:
        raise ConfigError(
            f"{output} holds the results of another job: {'; '.join(changed)}. "
            "Choose another output.path, or undo the change"
        )


def find_changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that differ.

    Parameters may be in any order, and keyword arguments among them, such as `generate_kwargs`.
    What else one of them holds is compared in its order: a model that chooses reads its options as
    they follow each other.
    """
    return [name for name in {**old, **new} if not _are_same(old.get(name), new.get(name))]


def _are_same(old: Any, new: Any) -> bool:
    if old != new or not isinstance(old, Mapping):
        return bool(old == new)
    return all(
        _are_same(value, new[name])
        if name.endswith("_kwargs")
        else _list_keys(value) == _list_keys(new[name])
        for name, value in old.items()
    )


def _list_keys(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [(name, _list_keys(one)) for name, one in value.items()]
    return [_list_keys(one) for one in value] if isinstance(value, list) else []


def _describe_fields(fields: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, str]:
    """Describe each field as a user knows it: a digest with the path that it is of."""
    texts = {name: repr(value) for name, value in fields.items()}
    paths = {
        "model": (job.get("model") or {}).get("path"),
        "code of pipeline_class": job.get("pipeline_class"),
    }
    for name, path in paths.items():
        if path and fields.get(name) is not None:
            texts[name] = f"{path}, digest {fields[name]}"
    return texts


def digest_folder(folder: Path) -> str:
    """Return a short digest of the names and bytes of all files in a folder, except hidden ones."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts):
            digest.update(f"{inner.as_posix()}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()[:16]
