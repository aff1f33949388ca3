"""Infer the columns of a task that only its answers show, from a sample; the plan stores them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.child_process import (
    PROCESS_GONE,
    end_process,
    receive,
    send,
    take_over_pipes,
)
from pipemill.actors.compute.stages import Stages
from pipemill.actors.faults.attempts import Attempts, track_attempt
from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.split import Split, SplitReader
from pipemill.actors.workers.split_steps import Load, load_stages
from pipemill.pipelines.adapter.result_schema import (
    COLUMNS_OF_SAMPLE,
    COLUMNS_OF_TASK,
    can_own_columns_hold,
    infer_result_schema,
)
from pipemill.pipelines.loading.task_loader import LoadTask

from pipemill.errors import RunError, error_message

from ...execution.placement import uses_ray, with_credentials
from ...execution.pool_size import choose_pool_size
from ...execution.single_process import start_process
from ..find_model import load_failure

if TYPE_CHECKING:
    from ...config.job import ActorsSection

_ROWS = 32
_SPLITS = 4
_NODES = 5  # that may die while they compute a sample: no row is to blame for that
_SAMPLING = "sampling"
# The rows of a split that are computed, as (first row, count): all at once, and where a process
# died of one of them, some.
_WINDOWS = [(0, _ROWS), *((start, 8) for start in range(0, _ROWS, 8))]

_DIED = (
    "the columns that the task adds are inferred from a sample, but the process that computed it "
    "died on each of the first rows; declare the columns in output.schema"
)

# The arguments of `_infer_here`.
Asked = tuple[LoadTask, SplitReader, Sequence[Split], tuple[int, int]]
# The schema, or the reason why it could not be inferred.
Found = tuple[bytes | None, str | LoadError | None]


def infer_columns(
    load: LoadTask,
    source: SplitReader,
    splits: Sequence[Split],
    placement: str,
    actors: ActorsSection,
    attempts: Attempts,
) -> bytes:
    """Compute a few rows as an actor would, and return the schema of their answers, serialized.

    Raises RunError with the reason if that can't be done, ConfigError if the model can't load, or
    if no node of Ray has room for an actor: Ray would wait for one.
    """
    if uses_ray(placement):
        choose_pool_size(actors, placement, len(splits))
    few = list(splits[:_SPLITS])  # a table would travel as a whole
    deaths = [name for name in attempts.names() if name.startswith(f"{_SAMPLING}.")]
    found: Found | None = None
    for window in _WINDOWS[len(attempts.dead_attempts(deaths)) :]:
        with track_attempt(attempts, _SAMPLING):
            asked = (load, source, few, window)
            if placement == "local":
                found = _infer_here(*asked)
            elif uses_ray(placement):
                found = _infer_by_ray(asked, actors)
            else:
                found = _infer_by_process(asked, actors)
        if found is not None:
            break
    attempts.end(deaths)
    schema, reason = found or (None, _DIED)
    if isinstance(reason, LoadError):
        raise load_failure(reason, load.model.name)
    if schema is None:
        raise RunError(str(reason))
    return schema


def _infer_by_ray(asked: Asked, actors: ActorsSection) -> Found | None:
    """Infer the schema in a task of Ray; return None if its process died."""
    import ray

    sample = ray.remote(_infer_here).options(
        num_cpus=actors.num_cpus, num_gpus=actors.gpus_each, max_retries=0
    )
    load, *others = asked
    reason = ""
    for _ in range(_NODES):
        try:
            return ray.get(sample.remote(with_credentials(load, actors), *others))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            return None
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            if not isinstance(error, ray.exceptions.NodeDiedError):
                break
    return None, f"no sample could be computed: {reason}"


def _infer_by_process(asked: Asked, actors: ActorsSection) -> Found | None:
    """Infer the schema in another process; return None if it died."""
    process = start_process(__name__, actors, subprocess.DEVNULL)
    try:
        send(process.stdin, asked)
        return receive(process.stdout)
    except PROCESS_GONE:
        return None
    finally:
        end_process(process)


def _answer() -> None:
    """Read the arguments of `_infer_here` from stdin, and write what it returns to stdout."""
    requests, replies = take_over_pipes()
    send(replies, _infer_here(*receive(requests)))


def _infer_here(
    load: Load, source: SplitReader, splits: Sequence[Split], window: tuple[int, int]
) -> Found:
    """Return exceptions instead of raising them: those of user code may fail to unpickle."""
    try:
        stages = load_stages(load)
        assert isinstance(stages, Stages)  # the columns of several tasks are known
        return infer_sample_schema(stages, source, splits, window), None
    except LoadError as error:
        return None, error.with_traceback(None)
    except RunError as error:
        return None, str(error)
    except Exception as error:
        return None, f"the sample failed: {type(error).__name__}: {error_message(error)}"


def infer_sample_schema(
    stages: Stages,
    source: SplitReader,
    splits: Sequence[Split],
    window: tuple[int, int] = _WINDOWS[0],
) -> bytes:
    """Return the schema of the answers of some rows, serialized. Raises RunError."""
    answers, failed = _sample(stages, source, splits, window)
    if not answers:
        raise RunError(f"none of the first rows could be computed; {'; '.join(failed[:3])}")
    return _choose_schema(stages.task, answers).serialize().to_pybytes()


def _sample(
    stages: Stages, source: SplitReader, splits: Sequence[Split], window: tuple[int, int]
) -> tuple[list[Any], list[str]]:
    """Return the answers of the first rows, and the reasons why other rows failed."""
    start, count = window
    answers: list[Any] = []
    reasons: list[str] = []
    for split in splits:
        batch = source.read(split)
        few = Batch(batch.rows.slice(start, count), lacking=batch.lacking)
        few.failures = {
            row - start: f for row, f in batch.failures.items() if start <= row < start + count
        }
        answers += stages.answers(few)
        reasons += [f"row {start + row}: {f.error}: {f.message}" for row, f in few.failures.items()]
        if len(answers) >= _ROWS:
            break
    return answers, reasons


def _choose_schema(task: Any, answers: list[Any]) -> pa.Schema:
    """Return the columns of the task if they hold every answer, else one column of the answers."""
    declared = task.declared
    if declared.results is not None:
        own = declared.results(task.loaded)
        if can_own_columns_hold(declared, answers, own, task.keywords.given):
            return own.with_metadata({b"columns": COLUMNS_OF_TASK})
    return infer_result_schema(answers).with_metadata({b"columns": COLUMNS_OF_SAMPLE})


if __name__ == "__main__":
    _answer()
