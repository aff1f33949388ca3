"""Imports of large libraries, as fast as they can be."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Within it no garbage is looked for, and what is there at its end is never looked through.

    torch and transformers make a million objects that stay; to go through them again and again is
    a quarter of their import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()
