"""Where splits are processed: in one actor, over three Ray operators, or in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipemill.actors.credentials import Credentials, WithCredentials
from pipemill.actors.sources.streams.kept_streams import close_kept_streams
from pipemill.actors.split import Split
from pipemill.actors.split_result import SplitResult, results_from_table
from pipemill.actors.split_table import SplitTable
from pipemill.actors.workers.fused import FusedWorker, LocalWorker
from pipemill.actors.workers.split_steps import Load, Sink
from pipemill.actors.workers.staged import ExpandWorker, ForwardWorker, RegroupWorker

from pipemill.errors import RunError

from .actor_release import kill_leftover_actors
from .pool_size import TASK_CPUS, choose_pool_size, describe_wait
from .progress import log
from .ray_cluster import ray_session
from .single_process import is_small, work_without_ray
from .split_work import SplitWork
from .startup import StartupStage

if TYPE_CHECKING:
    from ray.data import Dataset

    from ..config.job import ActorsSection

# Ray schedules every block, which takes it some milliseconds. An actor that is slow with its last
# one keeps the run waiting, and one that gets none is idle.
_FEW_BLOCKS, _BLOCKS_EACH, _MOST_BLOCKS = 1000, 8, 20_000
# Calls that overlap in an actor: one tokenizes or writes while another is on the device.
_CALLS = 2
# The same where the task writes texts: long ones of a split hold back no other one.
_WRITING_CALLS = 4

# One worker process without Ray, for small inputs (`resolve_placement`).
SINGLE = "single"

Results = Generator[SplitResult, None, None]


def resolve_placement(
    placement: str, actors: ActorsSection, splits: Sequence[Split], is_static: bool = False
) -> str:
    """Return where these splits are processed: few ones need no Ray. is_static: see `is_small`."""
    return SINGLE if placement == "fused" and is_small(actors, splits, is_static) else placement


def uses_ray(placement: str) -> bool:
    """Return whether Ray is needed from the start."""
    return placement not in ("local", SINGLE)


def run_splits(work: SplitWork, splits: SplitTable) -> Results:
    """Process splits, and yield the result of each as it comes, in any order."""
    close_kept_streams()  # of the rows that were looked at before
    try:
        with _remove_attempts(work.sink):
            yield from _run(work, splits)
    finally:
        close_kept_streams()


def stage_of(work: SplitWork) -> StartupStage:
    """Return what a run waits for until its first rows are done."""
    first = "loading the model"
    if uses_ray(work.placement):
        first = describe_wait(work.actors) or "starting workers"
    return StartupStage(work.sink.attempts(), first, measures=work.load.max_tokens is None)


@contextmanager
def _remove_attempts(sink: Sink) -> Iterator[None]:
    """Remove all attempts at the end: they should only outlive processes that died."""
    try:
        yield
    except RunError:  # Ray died, and a row may have killed it
        raise
    except BaseException:
        _clear(sink)
        raise
    _clear(sink)


def _clear(sink: Sink) -> None:
    # Files that stay cost a later run little; the error that ended this one must be seen.
    with suppress(Exception):
        attempts = sink.attempts()
        attempts.end(attempts.names())


def _run(work: SplitWork, splits: SplitTable) -> Results:
    if work.placement == "local":
        with closing(LocalWorker(work.load, work.source, work.sink)) as worker:
            yield from map(worker.process, splits)
        return
    if work.placement == SINGLE:
        splits = yield from work_without_ray(work.alone_on_gpu(), splits)
        if not splits:
            return
        work = replace(work, placement="fused")
    with ray_session(work.actors.cluster):
        while splits:
            splits = yield from _run_on_ray(work, splits)
            if splits:
                work = _reduce_actors(work)


def _run_on_ray(work: SplitWork, splits: SplitTable) -> Generator[SplitResult, None, SplitTable]:
    """Yield the results of splits; return those that may fit with fewer actors on a GPU."""
    size = choose_pool_size(work.actors, work.placement, len(splits))
    build = _build_fused if work.placement == "fused" else _build_staged
    # Of millions of splits, a byte for each.
    done = bytearray(splits[-1].number + 1 if work.shares_gpu else 0)
    crowded = set[int]()
    with closing(_read_results(build(_make_dataset(splits, size[1]), work, size))) as results:
        for result in results:
            if result.cause == "memory" and work.shares_gpu:
                if result.fatal:  # the model: all that this actor gets would come back
                    return splits.select(lambda split: not done[split.number])
                crowded.add(result.split.number)
                continue
            if work.shares_gpu:
                done[result.split.number] = True
            yield result
    return splits.select(lambda split: split.number in crowded) if crowded else splits[:0]


def _reduce_actors(work: SplitWork) -> SplitWork:
    """Put fewer actors on a GPU after its memory ran out."""
    fewer = work.with_fewer_on_gpu()
    before, now = (math.floor(1 / one.actors.gpus_each) for one in (work, fewer))
    log(
        f"the GPU's memory ran out with {before} actors on it: going on with {now} "
        f"(actors.per_gpu: {now} starts so)"
    )
    _clear(work.sink)  # what was at work has been ended
    return fewer


def count_blocks(splits: int, actors: int) -> int:
    """Choose how many blocks so many actors share."""
    return min(splits, max(_FEW_BLOCKS, min(_BLOCKS_EACH * actors, _MOST_BLOCKS)))


def _make_dataset(splits: Sequence[Split], actors: int) -> Dataset:
    """Return a dataset with one row per split, in order. actors: the most that work on it."""
    import ray

    # `from_arrow` would run a task for each block: the first workers of Ray would each import its
    # library for that, and could then no longer become actors.
    rows: Any = _Rows(splits)
    dataset = ray.data.from_items(rows, override_num_blocks=count_blocks(len(rows), actors))
    context = dataset.context  # a copy: that of the process is for the user's own datasets
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # A split may take longer than Ray waits by default for a task that shows no progress.
    context.execution_no_progress_timeout_s = 10**9
    # A block may hold many splits: a result is wanted when it is there, not with the last one.
    context.target_max_block_size = 1
    return dataset


class _Rows(Sequence[dict[str, str]]):
    """A row for each split, which is made when Ray puts it into a block: there may be millions."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._splits = splits

    def __len__(self) -> int:
        return len(self._splits)

    def __getitem__(self, place: Any) -> Any:
        return {"split": self._splits[place].to_json()}


def _build_fused(dataset: Dataset, work: SplitWork, size: tuple[int, int]) -> Dataset:
    writes = getattr(work.load, "writes_texts", False)
    return _map(
        dataset,
        FusedWorker,
        fn_constructor_args=(with_credentials(work.load, work.actors), work.source, work.sink),
        fn_constructor_kwargs={"shares_gpu": work.shares_gpu},
        **_pool(work.actors, size, _WRITING_CALLS if writes else _CALLS),
    )


def _build_staged(dataset: Dataset, work: SplitWork, size: tuple[int, int]) -> Dataset:
    light = with_credentials(work.load.with_changes(weights=False), work.actors)
    expanded = _map(dataset, ExpandWorker(light, work.source, work.sink), num_cpus=TASK_CPUS)
    forwarded = _map(
        expanded,
        ForwardWorker,
        fn_constructor_args=(with_credentials(work.load, work.actors), work.sink.attempts()),
        fn_constructor_kwargs={"shares_gpu": work.shares_gpu},
        **_pool(work.actors, size, 1),
    )
    return _map(forwarded, RegroupWorker(light, work.sink), num_cpus=TASK_CPUS)


def with_credentials(load: Load, actors: ActorsSection) -> Load:
    """Add the credentials of the driver to what a Ray worker loads, unless the job forbids it."""
    if not actors.pass_credentials:
        return load
    return WithCredentials(load, Credentials.of_environment())


def _map(dataset: Dataset, worker: Callable[..., Any], **options: Any) -> Dataset:
    # A batch is one split: the work of a call, and what is lost when it dies.
    return dataset.map_batches(worker, batch_size=1, batch_format="pyarrow", **options)


def _pool(actors: ActorsSection, size: tuple[int, int], calls: int) -> dict[str, Any]:
    """Return the options of an actor pool: its size, and what each actor holds."""
    from ray.data import ActorPoolStrategy

    strategy = ActorPoolStrategy(
        min_size=size[0],
        max_size=size[1],
        max_concurrent_calls_per_actor=calls,
        # Not more than run: a split that waits at a busy actor would be missing at an idle one.
        max_tasks_in_flight_per_actor=max(calls, 2),
        enable_true_multi_threading=calls > 1,
    )
    return {
        "compute": strategy,
        "num_cpus": actors.num_cpus,
        "num_gpus": actors.gpus_each or None,
    }


def _read_results(dataset: Dataset) -> Results:
    import ray
    from ray.exceptions import RayError

    bundles = None
    try:
        with kill_leftover_actors(dataset):
            # `iter_batches` reads in a thread, which may still use Ray when that is shut down.
            bundles = dataset.iter_internal_ref_bundles()
            for bundle in bundles:
                for entry in bundle.blocks:
                    yield from results_from_table(ray.get(entry.ref).drop_columns(["payload"]))
    except RayError as error:
        reason = str(error).strip().splitlines() or [""]
        raise RunError(
            f"Ray stopped the run ({type(error).__name__}: {reason[-1]}); run again to resume"
        ) from error
    finally:
        del bundles  # which ends the execution
