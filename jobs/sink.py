"""Writes what became of a split: its dead letters, then its part."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.batch import Batch

from .attempts import AttemptFiles
from .columns import beside
from .ledger import DEAD_LETTERS
from .media import holds_files
from .storage import open_filesystem, write_whole


@dataclass
class PartSink:
    """An output folder as the workers see it.

    keep: the input columns that go into the parts; dead letters keep all that were read, but
        for whole files that are not kept.
    footer: what every part's footer says of the job.
    run: of which run; one is made for each.
    """

    path: str
    options: dict[str, Any]
    keep: list[str]
    on_error: str
    footer: dict[str, Any]
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def attempts(self) -> AttemptFiles:
        return AttemptFiles(self.path, self.options, self.run)

    def is_done(self, split: dict[str, Any]) -> bool:
        filesystem, root = open_filesystem(self.path, self.options)
        return filesystem.exists(f"{root}/{split['part']}")

    def write(self, split: dict[str, Any], batch: Batch) -> None:
        if batch.failures and self.on_error == "raise":
            row, first = min(batch.failures.items())
            raise RuntimeError(
                f"row {row} of {split['path']} failed (output.on_error is raise): "
                f"{first.stage}: {first.error}: {first.message}"
            )
        filesystem, root = open_filesystem(self.path, self.options)
        letters = f"{root}/{DEAD_LETTERS}/{split['part']}"
        if batch.failures:
            write_whole(filesystem, letters, _parquet(self._dead_letters(split, batch), {}))
        elif filesystem.exists(letters):
            filesystem.rm_file(letters)  # of an attempt that died before it wrote the part
        assert batch.results is not None
        part = beside(batch.rows.select(self.keep), batch.results)
        if self.on_error != "null":
            part = part.take(pa.array(batch.live()))
        footer = {
            **self.footer,
            "split": split["number"],
            "rows": batch.rows.num_rows,
            "dead": len(batch.failures),
            "truncated_rows": int(batch.work.get("truncated_rows", 0)),
            "lost_tokens": int(batch.work.get("lost_tokens", 0)),
        }
        write_whole(filesystem, f"{root}/{split['part']}", _parquet(part, footer))

    def _dead_letters(self, split: dict[str, Any], batch: Batch) -> pa.Table:
        numbers = np.array(sorted(batch.failures))
        failures = [batch.failures[row] for row in numbers]
        why = pa.table(
            {
                "split": pa.array([split["number"]] * len(numbers), pa.int64()),
                "row": pa.array(numbers, pa.int64()),
                "stage": [failure.stage for failure in failures],
                "error": [failure.error for failure in failures],
                "message": [failure.message for failure in failures],
                "attempts": pa.array([1] * len(numbers), pa.int32()),
            }
        )
        rows = batch.rows
        told = [f.name for f in rows.schema if f.name in self.keep or not holds_files(f)]
        return beside(rows.select(told).take(pa.array(numbers)), why)


def _parquet(table: pa.Table, footer: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        if footer:
            writer.add_key_value_metadata({"pipemill": json.dumps(footer)})
    return sink.getvalue()
