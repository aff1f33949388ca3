"""Let the actors of a pipeline of Ray Data end when it has failed, or was left."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.data import Dataset


class ActorRelease:
    """Lets the actors of a pipeline end that failed; a callback of Ray Data.

    An actor ends when nothing refers to it, and the error of a pipeline refers to all that the
    functions on its way knew: a notebook keeps it, and with it a model on a GPU.
    """

    def before_execution_starts(self, executor: object) -> None:
        """Do nothing."""

    def on_execution_step(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_succeeds(self, executor: object) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: object, error: BaseException) -> None:
        """Forget the variables of the functions that the error passed through."""
        one: BaseException | None = error
        while one is not None:
            traceback.clear_frames(one.__traceback__)
            one = one.__cause__ or one.__context__


# The executor that this thread has started.
_started = threading.local()


class NotedExecution(ActorRelease):
    """Notes what executes a pipeline; a callback of Ray Data."""

    def before_execution_starts(self, executor: object) -> None:
        """Note the executor."""
        _started.executor = executor


@contextmanager
def kill_leftover_actors(dataset: Dataset) -> Iterator[None]:
    """Kill the actors of a dataset's execution that is not at its end after this context.

    Ray lets an actor end when nothing refers to it. A task that it was computing may refer to it
    for as long as this process lives, and the next execution would wait for its share of a GPU.

    dataset: is executed in this thread, within the context.
    """
    context, _started.executor = dataset.context, None
    others = context.custom_execution_callback_classes
    context.custom_execution_callback_classes = [*others, NotedExecution]
    try:
        yield
    finally:
        executor, _started.executor = _started.executor, None
        if executor is not None:
            with suppress(Exception):  # Ray may be gone, and what ended the run must be seen
                executor.shutdown(force=True)  # which does nothing at its end
