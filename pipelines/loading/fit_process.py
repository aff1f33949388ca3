"""Check a model in a process that ends afterwards, for drivers that import no torch."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress

from pipemill.actors.child_process import start_python

from .task_loader import LoadTask


class FitCheck:
    """Runs `LoadTask.find_misfit` in another process, from the start of the block to `result`."""

    def __init__(self, load: LoadTask) -> None:
        self._load = pickle.dumps(load)

    def __enter__(self) -> FitCheck:
        self._process = start_python(
            __name__,
            # It looks at no weights, and should not wait for a GPU to wake up.
            environment={"CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.DEVNULL,
            new_session=False,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(self._load)
            self._process.stdin.close()
        self._process.stdin = None
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def result(self) -> str | None:
        """Wait for what `find_misfit` returns; None if the process died."""
        try:
            answer, _ = self._process.communicate()
            return pickle.loads(answer)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return None


def _answer() -> None:
    """Read a LoadTask from stdin, and write what `find_misfit` returns to stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model's code prints is not an answer
    load = pickle.load(sys.stdin.buffer)
    pickle.dump(load.find_misfit(), answers)
    answers.close()


if __name__ == "__main__":
    _answer()
