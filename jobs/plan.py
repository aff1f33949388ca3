"""The splits of a job: fixed once, stored in the output, read again by every later run."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import ConfigError
from .inputs import InputFile
from .sources.ranges import Range

_COLUMNS = pa.schema(
    [
        ("number", pa.int64()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("rows", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Split:
    """A frozen piece of the input: rows (Parquet) or bytes (JSONL) `start` to `stop` of a file.

    rows: how many it holds; None where only reading tells.
    """

    number: int
    path: str
    size: int
    version: str
    start: int
    stop: int
    rows: int | None

    @property
    def part(self) -> str:
        """The name of its one output file. The numbers sort like the input."""
        identity = f"{self.path}|{self.size}|{self.version}|{self.start}|{self.stop}"
        return (
            f"part-{self.number:08d}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.parquet"
        )

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "part": self.part})


@dataclass
class Plan:
    """schema: the input's columns, the same for every split."""

    format: str
    schema: pa.Schema
    splits: list[Split] = field(default_factory=list)

    def add(self, files: list[InputFile], ranges: list[list[Range]]) -> None:
        for file, own in zip(files, ranges, strict=True):
            for r in own:
                self.splits.append(
                    Split(
                        len(self.splits),
                        file.path,
                        file.size,
                        file.version,
                        r.start,
                        r.stop,
                        r.rows,
                    )
                )

    def new_files(self, files: list[InputFile]) -> list[InputFile]:
        """Files that no split is of. A planned file that changed is an error that names it."""
        planned: dict[str, Split] = {split.path: split for split in self.splits}
        for file in files:
            old = planned.get(file.path)
            if old and (old.size, old.version) != (file.size, file.version):
                raise ConfigError(
                    f"{file.path} has changed since this output was planned (then {old.size} "
                    f"bytes, version {old.version}; now {file.size}, {file.version}). Its old "
                    "results are kept as they are: put the old file back, or name another output"
                )
        return [file for file in files if file.path not in planned]

    def to_bytes(self) -> bytes:
        columns = defaultdict(list)
        for split in self.splits:
            for name, value in asdict(split).items():
                columns[name].append(value)
        table = pa.table(
            {
                name: pa.array(columns[name], kind)
                for name, kind in zip(_COLUMNS.names, _COLUMNS.types, strict=True)
            }
        )
        notes = {"format": self.format, "schema": self.schema.serialize().to_pybytes()}
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(notes), sink)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        table = pq.read_table(io.BytesIO(data))
        notes = table.schema.metadata
        schema = pa.ipc.read_schema(pa.py_buffer(notes[b"schema"]))
        splits = [Split(**row) for row in table.to_pylist()]
        return cls(notes[b"format"].decode(), schema, splits)


class RowEstimate:
    """Rows in some splits; for byte ranges reckoned from those that have been seen."""

    def __init__(self, splits: list[Split]) -> None:
        self.known = sum(split.rows for split in splits if split.rows is not None)
        self.unknown_bytes = sum(_bytes(split) for split in splits if split.rows is None)
        self.rows_seen = self.bytes_seen = 0

    def see(self, split: Split, rows: int) -> None:
        if split.rows is None:
            self.rows_seen += rows
            self.bytes_seen += _bytes(split)

    def total(self) -> int:
        if not self.bytes_seen:
            return self.known
        return self.known + round(self.rows_seen * self.unknown_bytes / self.bytes_seen)


def _bytes(split: Split) -> int:
    return split.size if split.stop < 0 else split.stop - split.start
