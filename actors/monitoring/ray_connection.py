"""Tell whether this process is connected to a Ray, without an import of Ray."""

from __future__ import annotations

import sys
from typing import Any


def find_connected_ray() -> Any | None:
    """Return the module `ray` if this process is connected to a Ray, else None."""
    ray = sys.modules.get("ray")
    # Another thread may be importing it at this moment.
    is_initialized = getattr(ray, "is_initialized", None)
    return ray if is_initialized is not None and is_initialized() else None
