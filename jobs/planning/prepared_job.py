"""A job over its plan: what to load, what to read, where to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.base import Source
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.registry import find_source
from pipemill.actors.sources.schemas.hf_features import read_features
from pipemill.actors.storage.partitions import FOLDER, FOLDER_FIELD
from pipemill.pipelines.load_cascade import LoadCascade
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.task_columns import list_inputs, with_inputs, with_needed

from ..config.arrow_types import parse_schema
from ..execution.choose_placement import choose_placement
from ..execution.split_work import SplitWork
from ..output.split_plan import Plan
from ..rows.held_rows import check_writable
from .bind_task import bind_task, check_conditions, with_named_columns
from .build_load import build_load
from .columns import list_kept_columns, read_columns
from .fingerprint import hash_fields
from .media_roots import make_media_access, with_folders
from .model_conventions import follow_as_output_did
from .resolve_task import ResolvedTask, find_reading, list_tasks, select_parameters

if TYPE_CHECKING:
    from ..config.job import Job
    from ..output.ledger import Ledger


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
        """Return what processing its splits takes.

        A split of which media can't be read, since their server is away, is left for the next run.
        """
        media = replace(self.load.loads[0].media, waits=True)
        return SplitWork(
            placement=self.placement,
            load=self.load.with_changes(media=media),
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
    schema = _read_input_schema(job, plan)
    if not task.steps:
        task = replace(task, spec=with_inputs(task.spec, schema))
        task = follow_as_output_did(job, task, decides)
    if plan.is_of_nothing:
        adds = find_source(plan.format).columns_from_rows
        for one, own in list_tasks(job, task):
            given = select_parameters(one, own.spec)
            columns = list_inputs(own.spec, given)
            schema = with_needed(schema, own.spec, columns, one.input.columns, given, adds)
        schema = with_named_columns(schema, task, job.output.keep) if adds else schema
    keep = list_kept_columns(job.output.keep, schema)
    bound = [bind_task(one, own, schema, keep) for one, own in list_tasks(job, task)]
    asked = check_conditions(task, schema)
    needed = {*keep, *(asked & set(schema.names))}
    read = read_columns(schema, needed.union(*(one.columns.values() for one in bound)))
    bound = [with_folders(one, job.input, plan.files(), read) for one in bound]
    if any(FOLDER in one.columns for one in bound):
        read = read.append(FOLDER_FIELD)
    check_writable(
        pa.schema([read.field(name) for name in keep]),
        "name the columns to keep without it (output.keep)",
    )
    if job.output.schema is not None:
        plan.results = parse_schema(job.output.schema).serialize().to_pybytes()
    reading = replace(find_reading(job, task), known=tuple(plan.schema.names))
    source = open_source(plan.format, job.input.storage_options, read, reading)
    media = make_media_access(job.input, plan.files())
    load = build_load(task, bound, plan, source, read, decides).with_changes(media=media)
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
        notes=tuple(dict.fromkeys([*plan.notes, *(note for one in bound for note in one.notes)])),
    )


def _join(texts: Iterable[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(filter(None, texts))) or None


def _describe_engine(load: LoadTask) -> str | None:
    name, dtype = load.engine, load.model.dtype
    if name == "auto" and dtype != "int8":
        return None
    return name if dtype == "auto" else f"{name} {dtype}"


def _read_input_schema(job: Job, plan: Plan) -> pa.Schema:
    """Return the columns of the input, with those that its format makes on demand."""
    schema = plan.schema
    names = [name for one in job.each_task() for name in one.input.columns.values() if name]
    combined = find_source(plan.format).combine_columns(schema, dict.fromkeys(names))
    return pa.schema([*schema, *combined], metadata=schema.metadata)
