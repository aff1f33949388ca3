"""A job over its plan: what to load, what to read, where to write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.base import Source
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.registry import find_source
from pipemill.actors.sources.schemas.hf_features import read_features
from pipemill.pipelines.load_cascade import LoadCascade, LoadStep
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.registry import find_registered
from pipemill.pipelines.task_columns import (
    check_one_of,
    inputs_of,
    resolve_columns,
    source_names,
    with_inputs,
    with_needed,
)

from pipemill.errors import ConfigError, RunError

from ..config.arrow_types import parse_schema
from ..execution.choose_placement import choose_placement
from ..execution.split_work import SplitWork
from ..output.split_plan import Plan
from .columns import (
    check_conflicts,
    check_writable,
    kept_columns,
    notes_on_columns,
    read_columns,
)
from .fingerprint import hash_fields
from .infer_parameters import infer_parameters
from .media_roots import make_media_access
from .model_conventions import follow_as_output_did
from .resolve_task import (
    ResolvedTask,
    choose_dtype,
    find_graph_runtime,
    list_tasks,
    parameters_of,
    reading_of,
)
from .sample_rows import sample_rows

if TYPE_CHECKING:
    from ..config.job import Job
    from ..output.ledger import Ledger

# The most rows that an exported model is calibrated with, and their bytes: they travel to workers.
_EXAMPLES, _EXAMPLE_BYTES = 300, 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job that can run.

    Attributes:
        job: the job, with the device that was chosen.
        placement: where its splits are processed.
        asks_sample: whether only a sample shows the columns that the task adds.
        notes: what users may not expect of the columns.
        pooling: how vectors are made, in words.
    """

    job: Job
    plan: Plan
    ledger: Ledger
    load: LoadTask | LoadCascade
    source: Source
    sink: PartSink
    placement: str
    asks_sample: bool
    notes: tuple[str, ...] = ()
    pooling: str | None = None

    @property
    def is_static(self) -> bool:
        """Whether all models are static embeddings."""
        return all(load.static_folder is not None for load in self.load.loads)

    @property
    def engine(self) -> str | None:
        """The engine and its dtype, if answers may not be those of the model in torch."""
        return _join(map(_describe_engine, self.load.loads))

    @property
    def task(self) -> LoadTask:
        """What loads the task of a job that has one."""
        assert isinstance(self.load, LoadTask)
        return self.load

    def with_load(self, **changes: Any) -> PreparedJob:
        """Return the same with other fields of what loads each task."""
        return replace(self, load=self.load.with_changes(**changes))

    def work(self) -> SplitWork:
        """Return what processing its splits takes."""
        return SplitWork(
            placement=self.placement,
            load=self.load,
            source=self.source,
            sink=self.sink,
            actors=self.job.actors,
        )


def build_prepared_job(
    job: Job, task: ResolvedTask, plan: Plan, ledger: Ledger, decides: Mapping[str, Any]
) -> PreparedJob:
    """Build a job over its plan; writes nothing. Raises ConfigError.

    Args:
        decides: what decides the results of the output; empty without an output.
    """
    schema = _input_schema(job, plan)
    if not task.steps:
        task = replace(task, spec=with_inputs(task.spec, schema))
        task = follow_as_output_did(job, task, decides)
    if plan.is_of_nothing and find_source(plan.format).columns_from_rows:
        for one, own in list_tasks(job, task):
            given = parameters_of(one, own.spec)
            columns = inputs_of(own.spec, given)
            schema = with_needed(schema, own.spec, columns, one.input.columns, given)
    keep = kept_columns(job.output.keep, schema)
    bound = [_bind_task(one, own, schema, keep) for one, own in list_tasks(job, task)]
    asked = _check_conditions(task, schema)
    needed = {*keep, *(asked & set(schema.names))}
    read = read_columns(schema, needed.union(*(one.columns.values() for one in bound)))
    check_writable(read.empty_table().select(keep).schema)
    if job.output.schema is not None:
        plan.results = parse_schema(job.output.schema).serialize().to_pybytes()
    reading = replace(reading_of(job, task), known=tuple(plan.schema.names))
    source = open_source(plan.format, job.input.storage_options, read, reading)
    media = make_media_access(job.input)
    load = _build_load(task, bound, plan, source, read, decides).with_changes(media=media)
    return PreparedJob(
        job=job,
        plan=plan,
        ledger=ledger,
        load=load,
        pooling=_join(one.task.followed.pooling for one in bound),
        source=source,
        sink=PartSink(
            store=ledger.store,
            keep=keep,
            on_error=job.output.on_error,
            job=load.task,
            fingerprint=hash_fields(decides),
            features=read_features(plan.schema.metadata),
        ),
        placement=choose_placement(
            job.actors.placement, [ledger.path, *(s.path for s in plan.splits[:1])], task.spec
        ),
        asks_sample=plan.results is None and (task.is_user or task.spec.infers_columns),
        notes=tuple(dict.fromkeys(note for one in bound for note in one.notes)),
    )


@dataclass(frozen=True, kw_only=True)
class _BoundTask:
    """A task, and the input's columns that it reads.

    Attributes:
        job: the job as if it had this task alone.
        columns: the input's column for each of the task's.
        notes: what users may not expect of the columns.
    """

    job: Job
    task: ResolvedTask
    parameters: dict[str, Any]
    columns: Mapping[str, str]
    notes: tuple[str, ...]


def _check_conditions(task: ResolvedTask, schema: pa.Schema) -> set[str]:
    """Return the columns that the tasks' conditions read.

    Raises ConfigError for a condition that can't be tested. One on columns that earlier tasks add
    is checked by the worker, which knows them.
    """
    asked: set[str] = set()
    for number, step in enumerate(task.steps):
        if (condition := step.condition) is None:
            continue
        asked.update(condition.columns)
        if not number or set(condition.columns) <= set(schema.names):
            try:
                condition.check(schema)
            except ValueError as error:
                raise ConfigError(f"where of {step.entry.label}: {error}") from None
    return asked


def _bind_task(job: Job, task: ResolvedTask, schema: pa.Schema, keep: list[str]) -> _BoundTask:
    """Find the columns of the input that a task reads. Raises ConfigError."""
    task = replace(task, spec=with_inputs(task.spec, schema))
    parameters = parameters_of(job, task.spec)
    inputs = inputs_of(task.spec, parameters)
    names = source_names((c for c in inputs if c.name not in parameters), job.input.columns)
    check_conflicts(schema, names.values(), keep)
    named = task.spec.name, inputs, job.input.columns, parameters, schema
    columns = resolve_columns(*named)
    check_one_of(task.spec, columns)
    return _BoundTask(
        job=job,
        task=task,
        parameters=parameters,
        columns=columns,
        notes=notes_on_columns(*named),
    )


def _build_load(
    task: ResolvedTask,
    bound: list[_BoundTask],
    plan: Plan,
    source: Source,
    read: pa.Schema,
    decides: Mapping[str, Any],
) -> LoadTask | LoadCascade:
    """Return what a worker loads: the task, or all of several."""
    infers = plan.settled is None
    plan.settled = plan.settled or {}
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
    bound: _BoundTask,
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
    stored = plan.settled or {}
    if infers:
        inferred = infer_parameters(
            task.spec, parameters, task.model.path, source, plan.splits, columns
        )
        plan.settled = stored = {**stored, **{prefix + n: value for n, value in inferred.items()}}
    settled = {
        name: stored[prefix + name]
        for name in task.spec.infer_parameters
        if prefix + name in stored and parameters.get(name) is None
    }
    tokens = job.batching.max_tokens
    dtype = decides.get(f"{prefix}model.dtype") or choose_dtype(job, task.spec, task.is_user)
    return build_load_task(
        job,
        task,
        dtype,
        columns,
        parameters=json.dumps({**parameters, **settled}),
        max_tokens=None if tokens == "auto" else tokens,
        compiles=job.model.compile,
        schema=plan.results,
        examples=_read_examples(job, source, plan, columns.values()),
    )


def _join(texts: Iterable[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(filter(None, texts))) or None


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


def _read_examples(job: Job, source: Source, plan: Plan, columns: Iterable[str]) -> bytes | None:
    """Read the first rows, which an exported model is made with: always the same of a plan."""
    if find_graph_runtime(job) is None:
        return None
    try:
        rows = sample_rows(source, plan.splits, _EXAMPLES, places=1).rows.select(list(columns))
    except RunError:  # the run will say what is wrong with them
        return None
    fit = int(_EXAMPLE_BYTES / max(rows.nbytes / rows.num_rows, 1))
    rows = rows.slice(0, max(fit, 1))
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return stream.getvalue().to_pybytes()


def _describe_engine(load: LoadTask) -> str | None:
    name, dtype = load.engine, load.model.dtype
    if name == "auto" and dtype != "int8":
        return None
    return name if dtype == "auto" else f"{name} {dtype}"


def _input_schema(job: Job, plan: Plan) -> pa.Schema:
    """Return the columns of the input, with those that its format makes on demand."""
    schema, names = plan.schema, filter(None, job.input.columns.values())
    combined = find_source(plan.format).combine_columns(schema, names)
    return pa.schema([*schema, *combined], metadata=schema.metadata)
