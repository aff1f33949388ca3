"""Show what a run waits for until its first rows are done: CPUs, workers, the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipemill.actors.faults.attempt_files import AttemptFiles

# Seconds between listings of the output.
_LOOK_S = 2.0


@dataclass
class StartupStage:
    """Find the stage of a run from the attempts that its workers record in the output.

    Attributes:
        first: what is waited for before the first worker starts.
        measures: whether the first batches measure the token budget.
    """

    attempts: AttemptFiles
    first: str
    measures: bool
    _old: set[str] | None = None
    _text: str = ""
    _looked: float = field(default=-_LOOK_S)

    def __call__(self) -> tuple[str, bool]:
        """Return the stage in words, and whether rows are being computed."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._text = self._look()
            self._looked = time.monotonic()
        return self._text, self._text == self._describe_start()

    def _look(self) -> str:
        try:
            names = self.attempts.names()
        except Exception:  # the workers will say what is wrong with the output
            return self._text or self.first
        if self._old is None:  # of processes that died before
            self._old = set(names)
        new = [name for name in names if name not in self._old]
        if any(name.startswith("part-") for name in new):
            return self._describe_start()
        if any(name.startswith(f"loading.{self.attempts.run}.") for name in new):
            return "loading the model"
        return self._text or self.first

    def _describe_start(self) -> str:
        return "measuring on the first rows" if self.measures else "computing the first rows"
