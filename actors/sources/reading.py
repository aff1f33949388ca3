"""Say how the task and the user want the values of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipemill.errors import ConfigError, name_columns


@dataclass(frozen=True)
class Reading:
    """How a source turns the values of files into columns.

    kinds: the columns that the task reads, each with its kind (`actors/columns.py`).
    types: the types that `input.schema` declares.
    encoding: `input.encoding`.
    delimiter: `input.delimiter`.
    quotes: `input.quotes`.
    known: all columns of the plan, also those that are not read.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    known: tuple[str, ...] = ()

    def is_wanted(self, name: str) -> bool:
        """Tell whether a value of another type than the column's makes its row fail."""
        return name in self.kinds or name in self.types

    def declare(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema with the declared types of its columns."""
        for name in self.types.keys() & set(schema.names):
            field = pa.field(name, self.types[name])
            schema = schema.set(schema.get_field_index(name), field)
        return schema

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if a type is declared of what is no column of the input."""
        for name in self.types:
            if name not in schema.names:
                raise ConfigError(
                    f"input.schema names {name!r}, which the input does not have; "
                    f"{name_columns(name, schema.names)}"
                )
