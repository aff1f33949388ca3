"""The interface of a source, and the base class of each format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from ..batch import Batch
from ..split import Split
from ..storage.input_file import InputFile
from ..task import MEDIA
from .reading import Reading
from .split_ranges import MOST_MEDIA_ROWS, MOST_ROWS, SplitRange


class Source(Protocol):
    """Input files that can be planned and read."""

    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        """Return the columns of all files together.

        Raises:
            ConfigError: the files can't be read. NothingToRead, if none of them has a row.
        """

    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        """Cut the files into splits.

        Args:
            files: the input, in order.
            rows_per_part: the exact number of rows of a split; None to choose it.
            limit: the number of rows to read, from the start; None for all.

        Returns:
            The ranges in the order of the input, none longer than a split should be.
        """

    def read(self, split: Split) -> Batch:
        """Read one split, on a worker.

        Args:
            split: a range that `plan_splits` returned, with its file or its bundle of files.

        Returns:
            The rows in order, with the columns of the plan's schema. A row that can't be read stays
            as a row of nulls, and is named with `Batch.add_failure("read", row, error)`.

        Raises:
            StoreError: the store does not answer.
        """


@dataclass
class FileSource(ABC):
    """Base of the source of one format.

    A subclass sets `name` and `suffixes`, and overrides the three methods of `Source`.

    Attributes:
        name: the format's name in `input.format`.
        suffixes: the ends of its files' names, in lower case, such as ".csv".
        compressible: whether files may be compressed, with ".gz" or the like after the suffix.
        values: "text" if values are text and take the types that the task and `input.schema` ask
            for (`reading`); "typed" if files have types, from which `input.schema` casts;
            "fixed" if columns can't be declared.
        missing_columns: what new files may lack of the columns of older ones: "any" of them, those
            that are not read ("unread"), or "none".
        columns_from_rows: whether only rows tell the columns, so that an input without rows has
            none.
        is_companion: whether such files are left out beside files of other formats, since they
            are likely notes, or files that the others refer to.
        takes_any_file: whether a file with the suffix of another format is read, too.

        options: the storage options of fsspec.
        schema: the columns to read; None before they are known.
        reading: how the task and the user want the values.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    compressible: ClassVar[bool] = False
    values: ClassVar[Literal["text", "typed", "fixed"]] = "fixed"
    missing_columns: ClassVar[Literal["any", "unread", "none"]] = "any"
    columns_from_rows: ClassVar[bool] = False
    is_companion: ClassVar[bool] = False
    takes_any_file: ClassVar[bool] = False

    options: dict[str, Any]
    schema: pa.Schema | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def most_rows(self) -> int:
        """Return the most rows of a split whose size is chosen."""
        has_media = not set(MEDIA).isdisjoint(self.reading.kinds.values())
        return MOST_MEDIA_ROWS if has_media else MOST_ROWS

    @classmethod
    def combine_columns(cls, schema: pa.Schema, names: Iterable[str]) -> list[pa.Field]:
        """Return further columns that `read` can make of several.

        Args:
            schema: the columns of the files.
            names: the names that the user maps columns to.
        """
        return []

    def count_new_columns(self, batch: Batch, names: Iterable[str]) -> None:
        """Count the rows of columns that the plan lacks: those of a file that was added later.

        Args:
            batch: the rows of a split.
            names: the columns of its file.
        """
        known = self.reading.known
        new = [name for name in names if name not in known] if known else []
        if batch.rows.num_rows:
            batch.count_left_out(dict.fromkeys(new, batch.rows.num_rows))

    @abstractmethod
    def infer_schema(self, files: list[InputFile]) -> pa.Schema:
        """See `Source.infer_schema`."""

    @abstractmethod
    def plan_splits(
        self, files: list[InputFile], rows_per_part: int | None, limit: int | None
    ) -> Iterable[SplitRange]:
        """See `Source.plan_splits`."""

    @abstractmethod
    def read(self, split: Split) -> Batch:
        """See `Source.read`."""
