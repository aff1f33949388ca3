"""Hold the model of an actor, and unload it while another process needs the device."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipemill.errors import error_message

from .faults.attempts import DEATHS_LOADING, AttemptError, Attempts, track_attempt
from .faults.load_errors import LoadError, lacks_memory
from .faults.out_of_memory import empty_caches, release_memory
from .shared_lock import SharedLock

if TYPE_CHECKING:
    from .compute.cascade import Cascade
    from .compute.stages import Stages

# Seconds between tries to load a model for which a GPU has no memory left.
_WAITS_S = (2.0, 4.0, 8.0, 16.0)


class ModelSlot:
    """A task that is loaded once, shared by several calls, and unloaded while one needs the device.

    load: loads the task.
    seen: the names of the attempts that were listed before.
    """

    def __init__(
        self, load: Callable[[], Stages | Cascade], attempts: Attempts, seen: list[str]
    ) -> None:
        self._load, self._attempts = load, attempts
        self._loader = attempts.loader_key()
        self._deaths = [name for name in seen if name.startswith(f"{self._loader}.")]
        self._lock, self._loading = SharedLock(), threading.Lock()
        self._stages: Stages | Cascade | None = None
        self._error: LoadError | None = None

    def load(self) -> None:
        """Load the task now. An error is raised only when the task is used.

        Ray would restart an actor whose constructor raises again and again.
        """
        try:
            with self.stages():
                pass
        except (LoadError, AttemptError):
            pass

    @contextmanager
    def stages(self) -> Iterator[Stages | Cascade]:
        """Lend the loaded task to the block, which other calls may share. Raises LoadError."""
        with self._lock.shared():
            with self._loading:
                stages = self._get_or_load()
            yield stages

    @contextmanager
    def unloaded(self) -> Iterator[None]:
        """Unload the task during the block, once no call uses it.

        Two loaded models may exceed the memory; rows would then be blamed for the process's death.
        """
        with self._lock.alone():
            self._stages = None
            empty_caches()
            yield

    def discard(self) -> None:
        """Drop the task for good, after an error of the device that stays."""
        self._stages = None
        with suppress(RuntimeError):  # the device answers no call of this process
            empty_caches()

    def _get_or_load(self) -> Stages | Cascade:
        if self._error is None and self._stages is None:
            try:
                self._stages = self._load_unless_deadly()
            except AttemptError:
                raise
            except Exception as error:
                self._error = LoadError.of(error)
        if self._error is not None:
            known = self._error
            raise LoadError(str(known), for_good=known.for_good, out_of_memory=known.out_of_memory)
        assert self._stages is not None
        return self._stages

    def _load_unless_deadly(self) -> Stages | Cascade:
        if len(self._deaths) >= DEATHS_LOADING:
            reasons = self._attempts.reasons(self._deaths) or ["out of memory?"]
            raise LoadError(
                f"loading failed: the process died {len(self._deaths)} times in a row while it "
                f"loaded the model ({reasons[-1]})"
            )
        with track_attempt(self._attempts, self._loader):
            stages = self._load_patiently()
        self._attempts.end(self._deaths)
        self._deaths = []
        return stages

    def _load_patiently(self) -> Stages | Cascade:
        """Load, and wait a little if others hold the GPU's memory: one may be about to end."""
        for wait_s in _WAITS_S:
            try:
                return self._load()
            except Exception as error:
                if not _lacks_gpu_memory(error):
                    raise
            release_memory()  # outside `except`: an exception holds what was loaded
            time.sleep(wait_s)
        return self._load()


def _lacks_gpu_memory(error: BaseException) -> bool:
    return lacks_memory(error) and re.search(r"\b(CUDA|HIP)", error_message(error)) is not None
