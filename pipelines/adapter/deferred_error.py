"""An error that belongs to a later stage."""

from __future__ import annotations

from dataclasses import dataclass

from pipemill.errors import error_message


@dataclass(frozen=True)
class DeferredError:
    """An exception by name: not every exception survives pickling."""

    error: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> DeferredError:
        return cls(type(error).__name__, error_message(error))
