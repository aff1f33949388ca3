"""Several dataset splits, by name, as one input: a column says which split a row is of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipemill.errors import ConfigError

from .held_rows import TableRows

_COLUMNS = ("split", "dataset_split")


class DatasetSplits(TableRows):
    """Dataset splits one after another, with a column `split`, or `dataset_split` beside one."""

    def __init__(self, name: str, splits: Mapping[str, TableRows]) -> None:
        self.name, self._splits = name, splits
        self.is_stream = any(rows.is_stream for rows in splits.values())

    @property
    def identity(self) -> str:
        text = "\0".join(f"{name}\0{rows.identity}" for name, rows in self._splits.items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def count(self) -> int | None:
        counts = [rows.count for rows in self._splits.values()]
        return None if None in counts else sum(count or 0 for count in counts)

    def tables(self) -> Iterator[pa.Table]:
        column: str | None = None
        for name, rows in self._splits.items():
            for table in rows.tables():
                free = [one for one in _COLUMNS if one not in table.column_names]
                column = column or (free[0] if free else None)
                if column not in free:
                    raise ConfigError(
                        f"{self.name} has a column {' or '.join(_COLUMNS)} in some dataset splits, "
                        "where the name of the split goes: rename it"
                    )
                yield table.append_column(column, pa.array([name] * table.num_rows, pa.string()))
