"""A few result rows, as a table that fits a terminal."""

from __future__ import annotations

from typing import IO, Any

import pyarrow.parquet as pq

from .ledger import Ledger

_ROWS, _WIDTH = 3, 60


def show(output: str, options: dict[str, Any], file: IO[str]) -> None:
    """Prints the first rows of an output, one line per column; nothing if there are none."""
    ledger = Ledger(output, options)
    for part in sorted(ledger.parts())[:1]:
        with ledger.filesystem.open(f"{ledger.root}/{part}", "rb") as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(_ROWS), None)
        for number, row in enumerate(batch.to_pylist() if batch else []):
            print(f"row {number}", file=file)
            for name, value in row.items():
                print(f"  {name:<12}{_short(value)}", file=file)


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5 and isinstance(value[0], float):
        return f"[{', '.join(f'{x:.3f}' for x in value[:4])}, … {len(value)} in all]"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
