"""The splits of a job: fixed once, stored in the output, read again by every later run."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.split import Split
from pipemill.actors.split_table import SCHEMA, SplitTable
from pipemill.actors.storage.input_file import InputFile

from pipemill.errors import ConfigError

# The one split of an input without rows: its part shows readers the columns.
NOTHING = Split(0, "", 0, "", 0, 0, 0)


@dataclass
class Plan:
    """The splits of a job, and what was inferred from its rows.

    Attributes:
        format: of the input files.
        schema: the columns of the input, the same for every split.
        results: the columns that are added, as a serialized schema, if a sample showed them.
        inferred: parameters that were inferred from some rows; None before that.
        unnamed: planned files that the input no longer names; not stored.
        replaced: parts of splits that others have taken the places of; not stored.
        notes: what users may not expect of the input's files; not stored.
    """

    format: str
    schema: pa.Schema
    splits: SplitTable = field(default_factory=SplitTable)
    results: bytes | None = None
    inferred: dict[str, Any] | None = None
    unnamed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, pieces: Iterable[SplitRange]) -> None:
        for piece in pieces:
            self.splits.append(piece)

    @property
    def is_of_nothing(self) -> bool:
        """Return whether the input had no row when it was planned."""
        return len(self.splits) == 1 and not self.splits[0].path

    def files(self) -> Iterator[InputFile]:
        """Yield the files of the splits in their order, some perhaps more than once."""
        return (file for file in self.splits.files() if file.path)

    def replan(self, is_replaced: Callable[[Split], bool], pieces: Iterable[SplitRange]) -> None:
        """Put splits in the places of those with a file that changed: rows keep their order.

        Places that are left over hold no rows; splits for which there is no place come last.
        """
        old, self.splits, left, file = self.splits, SplitTable(), iter(pieces), NOTHING.file
        for split in old:
            if is_replaced(split):
                self.replaced.append(split.part)
                self.splits.append(next(left, SplitRange(NOTHING.file, 0, 0, 0)))
            else:
                # One object for all splits of a file: it may have a million.
                file = file if file == split.file else split.file
                of_bundle = split.bundle, split.counts
                kept = SplitRange(file, split.start, split.stop, split.rows, *of_bundle)
                self.splits.append(kept)
        self.add(left)

    def new_files(
        self, files: list[InputFile], changed: list[InputFile] | None = None
    ) -> list[InputFile]:
        """Return the files that no split belongs to.

        Raises ConfigError for a planned file that changed, and for one that is gone while a new
        file has the same size and version: that file was renamed, and has no other rows.

        changed: where to put planned files that changed, instead of raising.
        """
        # The plan's files are made one by one: of a million, the listed ones are enough.
        places = {file.path: place for place, file in enumerate(files)}
        is_planned = bytearray(len(files))
        gone: dict[tuple[int, str], str] = {}
        for old in self.files():
            place = places.get(old.path)
            if place is None:
                gone[old.size, old.version] = old.path
                continue
            is_planned[place] = True
            if old != (file := files[place]) and changed is not None:
                changed += [file] if file not in changed[-1:] else []
            elif old != file:
                raise ConfigError(
                    f"{file.path} has changed since this output was planned "
                    f"(then {_describe_version(old)}; now {_describe_version(file)}). Its old "
                    "results are kept as they are: put the old file back, name another output, or "
                    "compute the file again with run --on-changed reprocess "
                    "(on_changed='reprocess')"
                )
        new = [file for file, known in zip(files, is_planned, strict=True) if not known]
        for file in new:
            old_path = gone.get((file.size, file.version)) if file.version else None
            if old_path is not None:
                raise ConfigError(
                    f"{file.path} seems to be {old_path} under another path. This output was "
                    f"planned for {old_path}, which is no longer in the input: name the input by "
                    "the old path, or name another output"
                )
        return new

    def to_bytes(self) -> bytes:
        notes = {"format": self.format, "schema": self.schema.serialize().to_pybytes()}
        if self.results is not None:
            notes["results"] = self.results
        if self.inferred is not None:
            notes["settled"] = json.dumps(self.inferred)
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, SCHEMA.with_metadata(notes), compression="zstd") as writer:
            for rows in self.splits.to_arrow():
                writer.write_table(rows)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        file = pq.ParquetFile(io.BytesIO(data))
        notes = file.schema_arrow.metadata
        schema = pa.ipc.read_schema(pa.py_buffer(notes[b"schema"]))
        inferred = json.loads(notes.get(b"settled", b"null"))
        splits = SplitTable.from_arrow(file.iter_batches())
        return cls(notes[b"format"].decode(), schema, splits, notes.get(b"results"), inferred)


def _describe_version(file: InputFile) -> str:
    """Describe the version of a file: its size, and its time on a disk or its etag on a store."""
    size = f"{file.size:,} bytes"
    if re.fullmatch(r"\d{9,10}(\.\d*)?", file.version):
        when = datetime.fromtimestamp(float(file.version)).astimezone()
        return f"{size}, of {when.isoformat(' ', 'milliseconds')}"
    return f"{size}, version {file.version}" if file.version else size


class RowEstimate:
    """The rows in some splits; for byte ranges estimated from the splits that were read."""

    def __init__(self, splits: Iterable[Split]) -> None:
        self.known = self.unknown_bytes = self.rows_seen = self.bytes_seen = 0
        for split in splits:
            if split.rows is None:
                self.unknown_bytes += _count_bytes(split)
            else:
                self.known += split.rows

    @classmethod
    def of_known(cls, rows: int) -> RowEstimate:
        """Return the estimate for a known number of rows."""
        estimate = cls([])
        estimate.known = rows
        return estimate

    def see(self, split: Split, rows: int) -> None:
        """Count the rows of a split that was read."""
        if split.rows is None:
            self.rows_seen += rows
            self.bytes_seen += _count_bytes(split)

    @property
    def is_exact(self) -> bool:
        return self.bytes_seen == self.unknown_bytes

    def total(self) -> int:
        if not self.bytes_seen:
            return self.known
        return self.known + round(self.rows_seen * self.unknown_bytes / self.bytes_seen)


def _count_bytes(split: Split) -> int:
    return split.size if split.stop < 0 else split.stop - split.start
