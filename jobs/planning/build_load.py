"""Build what a worker loads: a task, or several."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.sources.base import Source
from pipemill.actors.split import Split
from pipemill.pipelines.load_cascade import LoadCascade, LoadStep
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.registry import find_registered

from pipemill.errors import RunError, StoreError

from ..output.split_plan import Plan
from .choose_engine import choose_dtype, find_graph_runtime
from .resolve_task import ResolvedTask
from .sampling.infer_parameters import infer_parameters
from .sampling.sample_rows import sample_rows

if TYPE_CHECKING:
    from ..config.job import Job
    from .bind_task import BoundTask

# The most rows that an exported model is calibrated with, and their bytes: they travel to workers.
_EXAMPLES, _EXAMPLE_BYTES = 300, 8 * 2**20
# In the plan: from how many of its splits they come. Others may be added.
_EXAMPLE_SPLITS = "example_splits"


def build_load(
    task: ResolvedTask,
    bound: list[BoundTask],
    plan: Plan,
    source: Source,
    read: pa.Schema,
    decides: Mapping[str, Any],
) -> LoadTask | LoadCascade:
    """Return what a worker loads: the task, or all of several."""
    infers = plan.inferred is None
    plan.inferred = plan.inferred or {}
    if not task.steps:
        return _build_bound(bound[0], plan, source, "", decides, infers)
    entries = [step.entry for step in task.steps]
    return LoadCascade(
        steps=tuple(
            LoadStep(
                name=entry.label,
                prefix=entry.prefix,
                where=entry.where,
                load=_build_bound(one, plan, source, f"{entry.label}.", decides, infers),
            )
            for entry, one in zip(entries, bound, strict=True)
        ),
        schema=read.serialize().to_pybytes(),
    )


def _build_bound(
    bound: BoundTask,
    plan: Plan,
    source: Source,
    prefix: str,
    decides: Mapping[str, Any],
    infers: bool,
) -> LoadTask:
    """Return what a worker loads for a task.

    Args:
        prefix: of the task's names in what is stored.
        infers: whether parameters that rows decide are to be inferred, and stored in the plan.
    """
    job, task, parameters, columns = bound.job, bound.task, bound.parameters, bound.columns
    runtime = find_graph_runtime(job)
    if infers:
        _infer(bound, plan, source, prefix)
    stored = plan.inferred or {}
    inferred = {
        name: stored[prefix + name]
        for name in task.spec.infer_parameters
        if prefix + name in stored and parameters.get(name) is None
    }
    tokens = job.batching.max_tokens
    dtype = decides.get(f"{prefix}model.dtype") or choose_dtype(job, task.spec, task.is_user)
    if runtime is not None and runtime.calibrates(dtype) and _are_examples_replaced(plan):
        plan.notes.append(
            f"the rows that the {dtype} graph of {runtime.name} took its scales from are others "
            "now: rows computed from here on may differ slightly from those that were done "
            "(another output would hold rows of one graph)"
        )
    return build_load_task(
        job,
        task,
        dtype,
        columns,
        parameters=json.dumps({**parameters, **inferred}),
        max_tokens=None if tokens == "auto" else tokens,
        compiles=job.model.compile,
        schema=plan.results,
        examples=_read_examples(
            job, source, plan.splits[: stored.get(prefix + _EXAMPLE_SPLITS)], columns.values()
        ),
    )


def _infer(bound: BoundTask, plan: Plan, source: Source, prefix: str) -> None:
    """Store in a new plan what its first rows decide of a task."""

    def read_rows(count: int) -> pa.Table:
        return sample_rows(source, plan.splits, count).rows

    task = bound.task
    found = infer_parameters(task.spec, bound.parameters, task.model, read_rows, bound.columns)
    inferred = {prefix + name: value for name, value in found.items()}
    if find_graph_runtime(bound.job) is not None:
        inferred[prefix + _EXAMPLE_SPLITS] = len(plan.splits)
    plan.inferred = {**(plan.inferred or {}), **inferred}


def _are_examples_replaced(plan: Plan) -> bool:
    """Tell whether splits of changed files took the places of some that held the first rows."""
    if not plan.replaced:
        return False
    first = min(int(part.split("-")[1]) for part in plan.replaced)
    return sum(split.rows or 0 for split in plan.splits[:first]) < _EXAMPLES


def build_load_task(
    job: Job, task: ResolvedTask, dtype: str, columns: Mapping[str, str], **more: Any
) -> LoadTask:
    """Return what a worker loads. more: other fields of `LoadTask`."""
    model = Model(
        path=task.model.path,
        revision=task.model.revision,
        dtype=dtype,
        trust_remote_code=job.model.trust_remote_code,
        use_safetensors=job.model.use_safetensors,
        allow_missing=job.model.allow_missing,
        pipeline_class=job.pipeline_class,
        num_gpus=job.actors.gpus_each,
        num_cpus=job.actors.num_cpus,
        root=task.model.root,
        remote=task.model.remote,
    )
    return LoadTask(
        task=task.spec.name,
        model=model,
        columns=tuple(columns.items()),
        own=task.is_user,
        engine=job.model.engine,
        files=json.dumps(task.files),
        location=None if task.is_user else find_registered(task.spec.name),
        **more,
    )


def _read_examples(
    job: Job, source: Source, splits: Sequence[Split], columns: Iterable[str]
) -> bytes | None:
    """Read the first rows, which an exported model is made with: always the same of a plan."""
    if find_graph_runtime(job) is None:
        return None
    try:
        rows = sample_rows(source, splits, _EXAMPLES, places=1).rows.select(list(columns))
    except RunError as error:
        if isinstance(error.__cause__, StoreError):  # other rows would make another graph
            raise
        return None  # the run will say what is wrong with them
    fit = int(_EXAMPLE_BYTES / max(rows.nbytes / rows.num_rows, 1))
    rows = rows.slice(0, max(fit, 1))
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return stream.getvalue().to_pybytes()
