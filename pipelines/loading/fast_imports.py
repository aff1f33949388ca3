"""Import large libraries fast, and to their end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from pipemill.interrupts import delay_interrupts


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no garbage inside the block, and never look through what exists at its end.

    torch and transformers make a million objects that stay. Going through them again and again
    takes a quarter of their import time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()


@contextmanager
def importing_transformers() -> Iterator[None]:
    """Import torch and transformers in the block."""
    # The user's process has imported them, and holds much else that is not to stay.
    imported = "transformers.pipelines" in sys.modules
    with delay_interrupts(), nullcontext() if imported else gc_paused():
        yield
