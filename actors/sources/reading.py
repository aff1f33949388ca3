"""How the task and the user want the values of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipemill.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Reading:
    """What decides how a source turns the values of a file into columns.

    kinds: the columns that the task reads, each with its kind (`actors/columns.py`).
    types: the types that `input.schema` declares.
    encoding: `input.encoding`.
    known: all columns of the plan, also those that are not read.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    encoding: str | None = None
    known: tuple[str, ...] = ()

    def is_wanted(self, name: str) -> bool:
        """Tell whether the column's type is a promise, so that a misfit costs its row."""
        return name in self.kinds or name in self.types

    def declare(self, schema: pa.Schema) -> pa.Schema:
        """Put the declared types into a schema. Raises ConfigError for a name it lacks."""
        for name, kind in self.types.items():
            if name not in schema.names:
                raise ConfigError(
                    f"input.schema names {name!r}, which the input has not; "
                    f"{did_you_mean(name, schema.names)} (columns: {', '.join(schema.names)})"
                )
            schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
        return schema
