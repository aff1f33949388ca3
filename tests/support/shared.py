"""What the tests of a group share, and what stops it when the last of them has run.

A Ray and its dashboard take a tenth of a core while nothing uses them.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

# Callbacks of what runs now.
SHARED = ExitStack()


def name_group(item: pytest.Item | None) -> str | None:
    """Return the group of a test, which xdist runs in one process; None for none."""
    mark = item and item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else None
