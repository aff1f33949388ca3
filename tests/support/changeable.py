"""What loads a task in tests: like `LoadTask` it can be had with other fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any


class Changeable:
    """The base of a frozen dataclass."""

    def with_changes(self, **changes: Any) -> Any:
        return replace(self, **changes)  # type: ignore[type-var]

    def with_num_gpus(self, num_gpus: float) -> Any:
        return self.with_changes(model=replace(self.model, num_gpus=num_gpus))
