"""The three functions on their way: in one actor, over three Ray operators, or in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pipemill.actors.credentials import Credentials, WithCredentials
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.workers import (
    ExpandWorker,
    ForwardWorker,
    FusedWorker,
    Load,
    RegroupWorker,
    Sink,
    Source,
)
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError, RunError

from ..config.job import ActorsSection
from ..output.split_plan import Split
from .ray_cluster import TASK_CPUS, in_use, pool_size, ray_session
from .single_process import is_small, work_without_ray
from .startup import StartupStage

# Ray schedules every block; more of them than this cost more than they spread the work.
_MOST_BLOCKS = 1000
# Calls that overlap in an actor: one tokenizes or writes while another is on the device.
_CALLS = 2

# One worker process, without Ray; what `resolve_placement` takes for small inputs.
SINGLE = "single"

Lines = Generator[dict[str, Any], None, None]


def choose_placement(placement: str, paths: list[str], spec: TaskSpec) -> str:
    """Where "auto" puts the stages: text tasks prepare so fast that one actor does it all."""
    if placement == "staged" and spec.expands_with_model:
        raise ConfigError(
            f"{spec.name} needs its model's weights to expand a row, and actors.placement: staged "
            "expands without them; use fused"
        )
    if any(path.startswith("memory://") for path in paths):
        if placement in ("fused", "staged"):
            raise ConfigError(
                f"memory:// lives in one process, and actors.placement: {placement} uses several; "
                "use local"
            )
        return "local"
    return "fused" if placement == "auto" else placement


def resolve_placement(placement: str, actors: ActorsSection, splits: list[Split]) -> str:
    """Return where these splits are done, of which "fused" or "staged" was chosen for all."""
    return SINGLE if placement == "fused" and is_small(actors, splits) else placement


def uses_ray(placement: str) -> bool:
    """Whether Ray is needed from the start."""
    return placement not in ("local", SINGLE)


def run_splits(
    placement: str,
    splits: list[Split],
    load: LoadTask,
    source: Source,
    sink: Sink,
    actors: ActorsSection,
) -> Lines:
    """Processes the splits, and yields a line about each as it is done, in any order."""
    with _attempts_of(sink):
        yield from _run(placement, splits, load, source, sink, actors)


def stage_of(placement: str, load: LoadTask, sink: PartSink, actors: ActorsSection) -> StartupStage:
    """Return what a run waits for until its first rows are done."""
    first = "loading the model"
    if uses_ray(placement):
        first = in_use(actors) or "starting workers"
    return StartupStage(sink.attempts(), first, measures=load.max_tokens is None)


@contextmanager
def _attempts_of(sink: Sink) -> Iterator[None]:
    """Attempts outlive processes that died; a run that ends by itself leaves none behind."""
    try:
        yield
    except RunError:  # Ray died, and perhaps a row killed it
        raise
    except BaseException:
        _clear(sink)
        raise
    _clear(sink)


def _clear(sink: Sink) -> None:
    # Files that are left cost a later run little; the error that ended this one must be seen.
    with suppress(Exception):
        attempts = sink.attempts()
        attempts.end(attempts.names())


def _run(
    placement: str,
    splits: list[Split],
    load: LoadTask,
    source: Source,
    sink: Sink,
    actors: ActorsSection,
) -> Lines:
    table = _table(splits)
    if placement == "local":
        worker = FusedWorker(load, source, sink)
        for i in range(len(table)):
            yield from worker(table.slice(i, 1)).to_pylist()
        return
    if placement == SINGLE:
        splits = yield from work_without_ray(splits, load, source, sink, actors)
        if not splits:
            return
        placement, table = "fused", _table(splits)
    with ray_session(actors.cluster):
        size = pool_size(actors, placement, len(splits))
        build = _fused if placement == "fused" else _staged
        yield from _lines(build(_dataset(table), load, source, sink, actors, size))


def _table(splits: list[Split]) -> pa.Table:
    return pa.table({"split": [split.to_json() for split in splits]})


def _dataset(table: pa.Table) -> Any:
    """One row per split, in order, in not too many blocks."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # A split may take longer than Ray's default patience with a task that shows no progress.
    context.execution_no_progress_timeout_s = 10**9
    # `from_arrow` would run a task for each block: the workers that Ray starts first would each
    # import its library for it, and are then no longer fit to become actors.
    return ray.data.from_items(table.to_pylist(), override_num_blocks=min(len(table), _MOST_BLOCKS))


def _fused(
    dataset: Any,
    load: LoadTask,
    source: Source,
    sink: Sink,
    actors: ActorsSection,
    size: tuple[int, int],
) -> Any:
    return _map(
        dataset,
        FusedWorker,
        fn_constructor_args=(with_credentials(load, actors), source, sink),
        **_pool(actors, size, _CALLS),
    )


def _staged(
    dataset: Any,
    load: LoadTask,
    source: Source,
    sink: Sink,
    actors: ActorsSection,
    size: tuple[int, int],
) -> Any:
    light = with_credentials(dataclasses.replace(load, weights=False), actors)
    expanded = _map(dataset, ExpandWorker(light, source, sink), num_cpus=TASK_CPUS)
    forwarded = _map(
        expanded,
        ForwardWorker,
        fn_constructor_args=(with_credentials(load, actors), sink.attempts()),
        **_pool(actors, size, 1),
    )
    return _map(forwarded, RegroupWorker(light, sink), num_cpus=TASK_CPUS)


def with_credentials(load: Load, actors: ActorsSection) -> Load:
    """Return what a worker of Ray loads with: with the driver's credentials, unless told not to."""
    if not actors.pass_credentials:
        return load
    return WithCredentials(load, Credentials.of_environment())


def _map(dataset: Any, worker: Callable[..., Any], **options: Any) -> Any:
    # A batch is one split: a call's work, and what is lost when it dies.
    return dataset.map_batches(worker, batch_size=1, batch_format="pyarrow", **options)


def _pool(actors: ActorsSection, size: tuple[int, int], calls: int) -> dict[str, Any]:
    """What an actor pool is told: its size, and what each actor holds."""
    from ray.data import ActorPoolStrategy

    strategy = ActorPoolStrategy(
        min_size=size[0],
        max_size=size[1],
        max_concurrent_calls_per_actor=calls,
        # No more than run: a split that waits at a busy actor is missed by an idle one.
        max_tasks_in_flight_per_actor=max(calls, 2),
        enable_true_multi_threading=calls > 1,
    )
    return {
        "compute": strategy,
        "num_cpus": actors.num_cpus,
        "num_gpus": actors.gpus_each or None,
    }


def _lines(dataset: Any) -> Lines:
    import ray
    from ray.exceptions import RayError

    # `iter_batches` reads in a thread, which may still use Ray when that is shut down.
    bundles = dataset.iter_internal_ref_bundles()
    try:
        for bundle in bundles:
            for entry in bundle.blocks:
                yield from ray.get(entry.ref).drop_columns(["payload"]).to_pylist()
    except RayError as error:
        reason = str(error).strip().splitlines() or [""]
        raise RunError(
            f"Ray stopped the run ({type(error).__name__}: {reason[-1]}); run again to resume"
        ) from error
    finally:
        del bundles  # which ends the execution
