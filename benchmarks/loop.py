"""What one writes first: go through the rows, write the answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from .marks import Marks

WINDOW = 256  # rows per call of a loop


def loop(
    rows: str, output: str, answer: Callable[[pa.Table], dict[str, Any]], window: int = WINDOW
) -> Marks:
    """Answers `window` rows of the folder `rows` after another and writes one file."""
    table, marks, answers = ds.dataset(rows).to_table(), [], []
    for start in range(0, len(table), window):
        answers.append(pa.table(answer(table.slice(start, window))))
        marks.append((time.time(), min(start + window, len(table))))
    Path(output).mkdir(parents=True)
    for column in (found := pa.concat_tables(answers)).column_names:
        table = table.append_column(column, found[column])
    pq.write_table(table, f"{output}/all.parquet")
    return marks


def texts(table: pa.Table) -> list[str]:
    return table["text"].to_pylist()
