"""Check a model in a process that ends afterwards, for drivers that import no torch."""

from __future__ import annotations

import pickle
import subprocess
from contextlib import suppress

from pipemill.actors.child_process import receive, send, start_python, take_over_pipes

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
    requests, answers = take_over_pipes()
    load: LoadTask = receive(requests)
    send(answers, load.find_misfit())


if __name__ == "__main__":
    _answer()
