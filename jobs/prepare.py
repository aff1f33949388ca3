"""Everything that is settled before a model loads or Ray starts. Raises ConfigError."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from pipemill.actors.output.layout import STATE
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources import Source, SplitRange, open_source
from pipemill.actors.sources.bad_file import NothingToRead
from pipemill.actors.sources.reading import Reading
from pipemill.actors.sources.schemas.hf_features import features_of
from pipemill.actors.storage.filesystem import absolute
from pipemill.actors.storage.listing import InputFile
from pipemill.actors.storage.media_files import merged_columns
from pipemill.actors.storage.partitions import is_partition_field, partition_values
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from pipemill.errors import ConfigError

from .config.arrow_types import schema_from
from .config.hf_dataset import is_dataset
from .config.job import Job
from .execution.devices import choose_device
from .execution.placement import choose_placement
from .execution.single_process import is_small
from .output.job_record import load_token_budget
from .output.lease import Lease
from .output.ledger import Ledger
from .output.split_plan import NOTHING, Plan
from .planning.columns import (
    check_conflicts,
    check_one_of,
    check_writable,
    kept_columns,
    notes_on_columns,
    read_columns,
    resolve_columns,
    source_names,
    with_needed,
)
from .planning.find_inputs import list_files
from .planning.find_model import check_fit, digest_model, resolve_model_path
from .planning.fingerprint import check_fingerprint, fingerprint, fingerprint_fields
from .planning.infer_parameters import infer_parameters
from .planning.media_roots import media_access
from .planning.model_conventions import read_conventions, root_of
from .planning.requirements import check_early_requirements, check_requirements
from .planning.resolve_task import (
    choose_dtype,
    column_kinds,
    inputs_of,
    parameters_of,
    resolve_task,
    with_inputs,
)
from .planning.stored_dataset import is_stored, needs_storing, with_stored_dataset


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job that can run: what to load, what to read, where to write, and what is planned."""

    job: Job  # with the device that was chosen
    plan: Plan
    ledger: Ledger
    load: LoadTask
    source: Source
    sink: PartSink
    placement: str
    asks_sample: bool  # the columns it adds are not known yet
    notes: tuple[str, ...] = ()  # what a user may not expect of the columns
    pooling: str | None = None  # how vectors are made, in words


def prepare(job: Job, lease: Lease | None = None) -> PreparedJob:
    """lease: taken before anything is written, and where something is left to do."""
    if f"{absolute(job.output.path)}/".startswith(f"{absolute(job.model.path).rstrip('/')}/"):
        raise ConfigError(
            f"output.path {job.output.path} lies in the model's folder, of which every file "
            "decides the results: name a folder elsewhere"
        )
    located = resolve_model_path(job.model)
    ledger = Ledger(absolute(job.output.path), job.output.storage_options)
    record = ledger.read_job()
    if record is None:  # before all weights are read for their digest
        check_early_requirements(job, located, job.actors.placement)
    job = choose_device(job, located)
    path, revision = located
    weights = digest_model(job.model, revision)
    kind, own = resolve_task(job, path)
    followed = read_conventions(job, kind, (path, revision)).followed.decides
    dtype = choose_dtype(job, kind, own, record if ledger.parts() else None)
    decides = fingerprint_fields(job, kind.name, dtype, weights, followed)
    seen = ledger.state()
    known = _is_known(job, ledger, decides)
    stores = lease is not None and needs_storing(job, ledger)
    if lease and stores:
        _check_fit(job, kind, own, (path, revision))
        lease.take()
    planned = with_stored_dataset(job, ledger)
    stored = ledger.read_plan() if known else None
    reads = set(source_names(kind.inputs, job.input.columns).values())
    plan, changed = _planned(planned, ledger, stored, reads, _reading(planned, kind))
    prepared = build_prepared_job(planned, plan, ledger, decides, (path, revision))
    if plan.is_of_nothing and prepared.asks_sample:
        raise ConfigError(
            f"the input has no rows, and which columns {kind.name} adds only answers to rows show: "
            "declare them in output.schema"
        )
    if known and (tokens := load_token_budget(planned, ledger)):
        prepared = replace(prepared, load=replace(prepared.load, max_tokens=tokens))
    exist = ledger.parts()
    to_do = changed or not known or any(split.part not in exist for split in plan.splits)
    if to_do:
        check_requirements(job, located, dict(prepared.load.columns), prepared.placement)
    if to_do and not exist and not stores:  # what has parts was checked when it began
        if not prepared.asks_sample and is_small(job.actors, plan.splits):
            # Its one process is started at once, and imports torch anyway.
            prepared = replace(prepared, load=replace(prepared.load, checks_fit=True))
        else:
            _check_fit(job, kind, own, (path, revision))
    if lease and to_do and lease.holder is None:
        lease.take()
        if ledger.state() != seen:  # another run came and went in between
            return prepare(job, lease)
    if changed:
        if NOTHING.part in exist and not plan.is_of_nothing:
            ledger.remove(NOTHING.part)
        ledger.write_plan(plan)
    if not known:
        ledger.write_job(_record(planned, decides))
    return prepared


def prepare_without_output(job: Job) -> PreparedJob:
    """The job planned as if for an empty output; of the output nothing is read or written.

    The model is not compiled: for a few rows that would be most of the time.
    """
    if is_dataset(job.input.path):
        raise ConfigError("a datasets.Dataset is read from a run's output: name its files instead")
    ledger = Ledger(absolute(job.output.path), job.output.storage_options)
    model = resolve_model_path(job.model)
    check_early_requirements(job, model, "local")
    job = choose_device(job, model, here=True)
    kind, own = resolve_task(job, model[0])
    _check_fit(job, kind, own, model, here=True)
    plan, _ = _planned(job, ledger, None, set(), _reading(job, kind))
    prepared = build_prepared_job(job, plan, ledger, {}, model)
    check_requirements(job, model, dict(prepared.load.columns), "local")
    return replace(prepared, load=replace(prepared.load, compiles=False))


def build_prepared_job(
    job: Job, plan: Plan, ledger: Ledger, decides: dict[str, Any], model: tuple[str, str | None]
) -> PreparedJob:
    """A job over its plan; writes nothing. model: path and revision."""
    path, _ = model
    kind, own = resolve_task(job, path)
    schema = plan.schema
    if plan.format == "webdataset":
        merged = merged_columns(schema, filter(None, job.input.columns.values()))
        schema = pa.schema([*schema, *merged], metadata=schema.metadata)
    kind = with_inputs(kind, schema)
    says = read_conventions(job, kind, model, decides)
    parameters = parameters_of(job, kind)
    inputs = inputs_of(kind, parameters)
    if plan.is_of_nothing and plan.format in ("jsonl", "webdataset"):
        schema = with_needed(schema, kind, inputs, job.input.columns, parameters)
    keep = kept_columns(job.output.keep, schema)
    names = source_names((c for c in inputs if c.name not in parameters), job.input.columns)
    check_conflicts(schema, names.values(), keep)
    named = kind.name, inputs, job.input.columns, parameters, schema
    columns = resolve_columns(*named)
    check_one_of(kind, columns)
    read = read_columns(schema, {*keep, *columns.values()})
    check_writable(read.empty_table().select(keep).schema)
    if job.output.schema is not None:
        plan.results = schema_from(job.output.schema).serialize().to_pybytes()
    reading = replace(_reading(job, kind), known=tuple(plan.schema.names))
    source = open_source(plan.format, job.input.storage_options, read, reading)
    if plan.settled is None:
        plan.settled = infer_parameters(kind, parameters, path, source, plan.splits, columns)
    settled = {n: value for n, value in plan.settled.items() if parameters.get(n) is None}
    return PreparedJob(
        job=job,
        plan=plan,
        ledger=ledger,
        load=replace(
            _load(job, kind, model, columns, {**parameters, **settled}, own, plan, decides),
            files=json.dumps(says.files),
        ),
        pooling=says.followed.pooling,
        source=source,
        sink=PartSink(
            path=ledger.path,
            options=job.output.storage_options,
            keep=keep,
            on_error=job.output.on_error,
            features=features_of(plan.schema.metadata),
            footer={"job": kind.name, "fingerprint": fingerprint(decides)},
        ),
        placement=choose_placement(
            job.actors.placement, [ledger.path, *(s.path for s in plan.splits[:1])], kind
        ),
        asks_sample=plan.results is None and (own or kind.infers_columns),
        notes=notes_on_columns(*named),
    )


def _check_fit(
    job: Job, kind: Any, own: bool, model: tuple[str, str | None], here: bool = False
) -> None:
    """Raise ConfigError for a model that can't do the task. model: path and revision."""
    load = LoadTask(
        task=kind.name,
        model=_model(job, model, choose_dtype(job, kind, own)),
        columns=tuple(_mapped(job).items()),
        own=own,
    )
    check_fit(load, here or job.actors.placement == "local")


def _mapped(job: Job) -> dict[str, str]:
    """Return the columns that the job names, without those that it leaves out."""
    return {name: own for name, own in job.input.columns.items() if own is not None}


def _load(
    job: Job,
    kind: Any,
    model: tuple[str, str | None],
    columns: dict[str, str],
    parameters: dict[str, Any],
    own: bool,
    plan: Plan,
    decides: dict[str, Any],
) -> LoadTask:
    tokens = job.batching.max_tokens
    return LoadTask(
        task=kind.name,
        model=_model(job, model, decides.get("model.dtype") or choose_dtype(job, kind, own)),
        columns=tuple(columns.items()),
        parameters=json.dumps(parameters),
        max_tokens=None if tokens == "auto" else tokens,
        own=own,
        compiles=job.model.compile,
        engine=job.model.engine,
        schema=plan.results,
        media=media_access(job.input),
    )


def _model(job: Job, model: tuple[str, str | None], dtype: str) -> Model:
    path, revision = model
    return Model(
        path=path,
        revision=revision,
        dtype=dtype,
        trust_remote_code=job.model.trust_remote_code,
        use_safetensors=job.model.use_safetensors,
        allow_missing=job.model.allow_missing,
        pipeline_class=job.pipeline_class,
        num_gpus=job.actors.gpus_each,
        num_cpus=job.actors.num_cpus,
        root=root_of(job.model, path),
    )


def _is_known(job: Job, ledger: Ledger, decides: dict[str, Any]) -> bool:
    """Whether the output is this job's; ConfigError if it is another's, or not pipemill's."""
    record = ledger.read_job()
    if record is None:
        _check_unused(ledger)
        return False
    # A job that has done nothing yet may be changed.
    if record["decides"] != decides and ledger.parts():
        check_fingerprint(record, decides, job, ledger.path)
    return record["decides"] == decides


def _check_unused(ledger: Ledger) -> None:
    foreign = [name for name in ledger.files() if name != STATE and not name.startswith(".")]
    if foreign:
        raise ConfigError(
            f"the output {ledger.path} is not empty and was not written by pipemill "
            f"(it holds {', '.join(sorted(foreign)[:3])}): name an empty or a new folder"
        )


def _reading(job: Job, kind: Any) -> Reading:
    """What the input's values are wanted as."""
    types = schema_from(job.input.schema, "input.schema") if job.input.schema is not None else []
    return Reading(
        kinds=column_kinds(kind, parameters_of(job, kind), job.input.columns),
        types={field.name: field.type for field in types},
        encoding=job.input.encoding,
    )


def _planned(
    job: Job, ledger: Ledger, plan: Plan | None, reads: set[str], reading: Reading
) -> tuple[Plan, bool]:
    """The stored plan, with splits for files that came since, or a new one; whether to store it.

    reads: columns that files which came since must have.
    reading: what the input's values are wanted as.
    """
    files, format = list_files(
        job.input.path,
        job.input.format,
        job.input.storage_options,
        None if is_stored(job.input.path, ledger) else ledger.path,
        job.output.storage_options,
    )
    source = open_source(format, job.input.storage_options, reading=reading)
    if plan is not None and _is_of_another_input(job, ledger, plan, files):
        plan = None  # nothing was done of it yet
    if plan is None or not plan.splits or plan.is_of_nothing:
        # Of an input without rows nothing is settled, not even its columns.
        made = Plan(format, source.inspect(files))
        made.add(_cut(job, source, files))
        if plan is not None and plan.splits and not made.splits:
            return plan, False
        made.splits = made.splits or [NOTHING]
        return made, True
    new = plan.new_files(files)
    if format != plan.format:
        raise ConfigError(f"the input was {plan.format} when it was planned, and is {format} now")
    if job.input.limit:
        _check_still_there(plan, files)
        new = []
    elif new:
        # Files without a row are never planned, and bad ones have no columns.
        with suppress(NothingToRead):
            _check_columns(plan, source.inspect(new), new, reads)
    before = len(plan.splits)
    if new:
        plan.add(_cut(job, source, new))
    return plan, len(plan.splits) > before


def _cut(job: Job, source: Source, files: list[InputFile]) -> list[SplitRange]:
    size = job.output.rows_per_part
    return source.cut(files, None if size == "auto" else size, job.input.limit)


def _check_still_there(plan: Plan, files: list[InputFile]) -> None:
    """With a limit new files add nothing, so another input would go unnoticed."""
    gone = {file.path for file in plan.files()} - {file.path for file in files}
    if gone:
        raise ConfigError(f"{min(gone)}, which this output was planned for, is not in the input")


def _is_of_another_input(job: Job, ledger: Ledger, plan: Plan, files: list[InputFile]) -> bool:
    """Whether the input names none of the planned files, and nothing is done of them yet.

    Raises ConfigError for another input than the one that an output holds rows of. The same folder
    or pattern may hold other files by and by: then the report tells of the old ones.
    """
    listed = {file.path for file in files}
    planned = list(dict.fromkeys(file.path for file in plan.files()))
    plan.unnamed = [path for path in planned if path not in listed]
    if not planned or len(plan.unnamed) < len(planned):
        return False
    if not ledger.parts():
        return True
    then = ((ledger.read_job() or {}).get("job", {}).get("input") or {}).get("path")
    if job.input.limit is None and _paths(then) != _paths(job.input.path):
        plan.new_files(files)  # which tells of a file that only has another name
        raise ConfigError(
            f"{ledger.path} holds rows of another input ({_some(planned)}), and none of its files "
            "is in this one: name another output, or name the old files too to add these to them"
        )
    return False


def _paths(given: Any) -> set[str]:
    return {absolute(path) for path in ([given] if isinstance(given, str) else given or [])}


def _some(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1:,} more files" if len(paths) > 1 else paths[0]


def _check_columns(plan: Plan, schema: pa.Schema, new: list[InputFile], reads: set[str]) -> None:
    for field in filter(is_partition_field, plan.schema):
        try:
            partition_values(field, [file.path for file in new])
        except ValueError as error:
            raise ConfigError(
                f"{error}: take it out of the input, or name another output"
            ) from None
    inside = {field.name for field in plan.schema if not is_partition_field(field)}
    missing = inside - set(schema.names)
    if plan.format in ("parquet", "arrow"):  # other columns are null where they are missing
        missing &= reads
    if missing and plan.format in ("parquet", "arrow", "csv"):
        raise ConfigError(
            f"new input files ({new[0].path}, …) lack the columns {', '.join(sorted(missing))} "
            "that this output was planned with: take them out of the input"
        )


def _record(job: Job, decides: dict[str, Any]) -> dict[str, Any]:
    said = job.model_dump()
    # A relative path is another one in another folder.
    given = said["input"]["path"]
    named = absolute(given) if isinstance(given, str) else [absolute(path) for path in given]
    said["input"]["path"] = named
    return {
        "job": said,
        "decides": decides,
        "fingerprint": fingerprint(decides),
        "versions": {
            "pipemill": pipemill.__version__,
            **{name: version(name) for name in ("transformers", "torch", "ray", "pyarrow")},
        },
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
