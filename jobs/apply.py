"""Add a task to a pipeline of Ray Data: `pipemill.apply`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pipemill.actors.credentials import Credentials
from pipemill.actors.operator import TaskOperator
from pipemill.actors.task import MEDIA
from pipemill.pipelines.bind_columns import bind_columns
from pipemill.pipelines.loading.task_loader import LoadTask

from pipemill.errors import ConfigError

from .config.arrow_types import parse_schema
from .config.job import ActorsSection, Job
from .config.load import build_job
from .execution.actor_release import ActorRelease
from .execution.pool_size import autoscales, choose_operator_pool, find_ray_nodes
from .execution.progress import log
from .planning.build_load import build_load_task
from .planning.choose_engine import choose_dtype, find_graph_runtime
from .planning.media_roots import make_media_access
from .planning.resolve_task import ResolvedTask, select_parameters
from .prepare import check_task_fits, resolve_job
from .rows.find_rows import list_classes

if TYPE_CHECKING:
    from ray.data import Dataset

# Rows of a task of Ray: some seconds of work, so that all actors have some. Larger blocks are
# divided, and smaller ones joined. On a GPU, micro-batches are larger.
_ROWS_ON_CPU, _ROWS_ON_GPU, _ROWS_OF_MEDIA = 512, 4096, 64
# Calls that overlap in an actor: one tokenizes while another is on the device.
_CALLS = 2
# For the actor of Ray that leaves out the rows of a checkpoint, a task that reads, and our actors.
_CHECKPOINT_CPUS = 3


def apply(
    dataset: Dataset,
    *,
    task: str | None = None,
    model: Any,
    columns: Mapping[str, str | None] | None = None,
    parameters: Mapping[str, Any] | None = None,
    batching: Mapping[str, Any] | None = None,
    actors: Mapping[str, Any] | None = None,
    pipeline_class: str | type | None = None,
    schema: Mapping[str, str] | None = None,
    media_roots: list[str] | None = None,
    error_column: str = "error",
    on_error: Literal["column", "raise"] = "column",
) -> Dataset:
    """Add a task to a pipeline of Ray Data. Nothing is computed until the result is used.

    Rows keep their order, and where blocks begin and end changes no answer. A row that fails, or
    kills its process, has null in the task's columns. Ray schedules the actors with the rest of the
    pipeline.

    Args:
        dataset: Any `ray.data.Dataset`.
        task: The name of the task; not needed if `model` is a pipeline.
        model: A folder, a Hub name, a URL, keys of `model` as in a config, a
            `transformers.Pipeline`, or a mapping with a loaded `model` and its `tokenizer`.
        columns: The task's column names to those of the data; None for one that the task must not
            read.
        parameters: The pipeline's parameters, with their names in transformers.
        batching: `max_tokens`, as in a config.
        actors: `min`, `max`, `num_gpus`, `per_gpu`, `num_cpus` and `pass_credentials`, as in a
            config. Between `min` and `max`, Ray chooses.
        pipeline_class: A subclass of `transformers.Pipeline`, or its "package.module:Class".
        schema: Arrow types of the columns that such a pipeline adds, by name.
        media_roots: Folders and URLs below which paths and URLs in media columns are read.
        error_column: The name of the column that says why a row failed; null in others.
        on_error: "column", or "raise" to end the pipeline at the first row that fails.

    Returns:
        A dataset with the input's columns, the task's, and the error column. An input column with
        the name of an added one becomes `input_NAME`.

    Raises:
        ConfigError: The task can't be done as described; also in the pipeline, for columns that
            are only known there.

    Example:
        `pipemill.apply(ray.data.read_parquet("in/"), task="fill-mask", model="m").write_parquet(
        "out/")`
    """
    _check_arguments(dataset, error_column, on_error)
    source: dict[str, Any] = {"path": "ray.data.Dataset", "media_roots": media_roots or []}
    sections = {
        "task": task,
        "model": model,
        "input": source,
        "output": {"schema": schema} if schema is not None else None,
        "parameters": parameters,
        "batching": batching,
        "actors": actors,
        "pipeline_class": pipeline_class,
    }
    given = {name: value for name, value in sections.items() if value is not None}
    job = build_job(None, [], columns or {}, given, needs_output=False)
    _check_actors(job.actors)
    job, resolved = resolve_job(job, "fused")
    _check_engine(job)
    _check_columns_known(job, resolved)
    _check_error_column(error_column, job, resolved)
    bind = partial(bind_columns, _build_load(job, resolved), job.input.columns)
    known = _read_schema(dataset)
    if known is not None:
        bind(known)
    check_task_fits(job, resolved)
    return _map(dataset, job, resolved, (bind, error_column, on_error, known))


def _check_arguments(dataset: object, error_column: str, on_error: str) -> None:
    if ("ray", "Dataset") not in list_classes(dataset):
        raise ConfigError(
            f"apply takes a ray.data.Dataset, not {type(dataset).__name__}: use pipemill.run for "
            "files and tables, or make one, such as ray.data.from_arrow(table)"
        )
    if on_error not in ("column", "raise"):
        raise ConfigError(f"on_error must be 'column' or 'raise', not {on_error!r}")
    if not isinstance(error_column, str) or not error_column:
        raise ConfigError(f"error_column must be the name of a column, not {error_column!r}")


def _check_actors(actors: ActorsSection) -> None:
    for name in ("placement", "per_node", "cluster"):
        if name in actors.model_fields_set:
            raise ConfigError(
                f"actors.{name} is for pipemill.run: Ray places the actors of apply with the rest "
                "of the pipeline; leave it out"
            )


def _check_engine(job: Job) -> None:
    if find_graph_runtime(job) is not None:
        raise ConfigError(
            f"model.engine {job.model.engine} is made with the first rows of an input, which apply "
            "does not have: use pipemill.run, or leave model.engine out"
        )


def _check_columns_known(job: Job, task: ResolvedTask) -> None:
    if job.output.schema is None and (task.is_user or task.spec.infers_columns):
        raise ConfigError(
            f"only answers show which columns {job.task} adds: declare them, such as "
            'schema={"result": "string"}'
        )


def _check_error_column(name: str, job: Job, task: ResolvedTask) -> None:
    """Raise ConfigError for the name of a column that the task adds, as far as that is known."""
    first = task.spec.adds.partition(";")[0].partition(":")[0]
    if name in [*first.split(", "), *(job.output.schema or {})]:
        raise ConfigError(
            f"error_column {name!r} is a column that {job.task} adds: give it another name"
        )


def _build_load(job: Job, task: ResolvedTask) -> LoadTask:
    tokens = job.batching.max_tokens
    declared = job.output.schema
    return build_load_task(
        job,
        task,
        choose_dtype(job, task.spec, task.is_user),
        {},
        parameters=json.dumps(select_parameters(job, task.spec)),
        max_tokens=None if tokens == "auto" else tokens,
        compiles=job.model.compile,
        schema=None if declared is None else parse_schema(declared).serialize().to_pybytes(),
        media=make_media_access(job.input),
    )


def _read_schema(dataset: Dataset) -> pa.Schema | None:
    """Return the columns of a dataset if they are known without computing a row of it."""
    schema = dataset.schema(fetch_if_missing=False)
    base = None if schema is None else schema.base_schema
    return base if isinstance(base, pa.Schema) else None


def _map(dataset: Dataset, job: Job, task: ResolvedTask, arguments: tuple[Any, ...]) -> Dataset:
    from ray.data import ActorPoolStrategy

    nodes, grows = find_ray_nodes(), autoscales()
    pool = choose_operator_pool(job.actors, nodes, autoscales=grows)
    cpus = sum(node.get("CPU", 0) for node in nodes)
    resumes = getattr(dataset.context, "checkpoint_config", None) is not None
    if resumes and cpus < _CHECKPOINT_CPUS and not grows:
        log(
            f"Ray has {cpus:g} CPUs. Resuming from its checkpoint takes one, reading one, and the "
            "actors a part of one: where they don't fit, Ray waits forever. Start it with more: "
            f"ray.init(num_cpus={_CHECKPOINT_CPUS})"
        )
    rows = _ROWS_ON_GPU if job.actors.gpus_each else _ROWS_ON_CPU
    if any(column.kind in MEDIA for column in task.spec.inputs):
        rows = _ROWS_OF_MEDIA
    credentials = Credentials.of_environment() if job.actors.pass_credentials else None
    # Blocks are divided, and actors end theirs in any order: rows would leave in another one.
    dataset.context.execution_options.preserve_order = True
    applied = dataset.repartition(target_num_rows_per_block=rows).map_batches(
        TaskOperator,
        fn_constructor_args=(*arguments, credentials),
        fn_constructor_kwargs={"job": dataset.name or "apply", "task": job.task},
        batch_size=rows,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=pool.least,
            max_size=pool.most,
            initial_size=pool.initial,
            max_concurrent_calls_per_actor=_CALLS,
            max_tasks_in_flight_per_actor=2 * _CALLS,
            enable_true_multi_threading=True,
        ),
        num_cpus=pool.num_cpus,
        num_gpus=job.actors.gpus_each or None,
        udf_modifying_row_count=False,
    )
    context = applied.context
    others = [one for one in context.custom_execution_callback_classes if one is not ActorRelease]
    context.custom_execution_callback_classes = [*others, ActorRelease]
    return applied
