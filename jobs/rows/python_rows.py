"""Lists and iterators of dicts or texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pipemill.actors.sources.registry import format_of
from pipemill.actors.storage.file_names import is_chain

from pipemill.errors import ConfigError, RunError, describe_error

from .cell_values import estimate_size, make_table
from .content_digest import digest_tables
from .held_rows import GROUP_ROWS, TableRows, check_unread

# The column that texts become.
TEXT = "text"
_GROUP_BYTES = 32 * 2**20

Row = Mapping[str, Any] | str


class RowList(TableRows):
    """A list of dicts or texts. Its identity is its content."""

    name = "a list"

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    @cached_property
    def identity(self) -> str:
        return digest_tables(self.tables())

    @property
    def count(self) -> int:
        return len(self._rows)

    def tables(self) -> Iterator[pa.Table]:
        return make_tables(self._rows, "the list")


class RowIterator(TableRows):
    """An iterator over dicts or texts, such as a generator. It can be read once."""

    is_stream = True

    def __init__(self, rows: Iterator[Row], most: int | None = None) -> None:
        self._rows, self._most = rows, most
        self.name = f"a {type(rows).__name__}"

    def head(self, rows: int) -> RowIterator:
        return RowIterator(self._rows, rows)

    @property
    def identity(self) -> str:
        return "iterator"

    def tables(self) -> Iterator[pa.Table]:
        check_unread(self._rows)
        yield from make_tables(
            islice(self._iterate_safely(), self._most), f"the {type(self._rows).__name__}"
        )

    def _iterate_safely(self) -> Iterator[Row]:
        count = 0
        try:
            for row in self._rows:
                yield row
                count += 1
        except Exception as error:
            raise RunError(
                f"the {type(self._rows).__name__} raised after {count:,} rows: "
                f"{describe_error(error)}. None of its rows is stored: run again with a new one"
            ) from error


def make_tables(rows: Iterable[Row], owner: str) -> Iterator[pa.Table]:
    """Yield rows in tables of a thousand, or of fewer if they are large."""
    group: list[Mapping[str, Any]] = []
    first, size = 0, 0
    kind: type | None = None
    for number, row in enumerate(rows):
        is_text = isinstance(row, str)
        if not is_text and not isinstance(row, Mapping):
            raise ConfigError(
                f"row {number:,} of {owner} is of the type {type(row).__name__}: rows are "
                "dicts, or texts"
            )
        if kind is not None and is_text != (kind is str):
            raise ConfigError(f"{owner} mixes texts and dicts (row {number:,}): use dicts alone")
        kind = str if is_text else dict
        group.append({TEXT: row} if isinstance(row, str) else row)
        with _explain_rows(number, number, owner):
            size += estimate_size(group[-1])
        if len(group) >= GROUP_ROWS or size >= _GROUP_BYTES:
            with _explain_rows(first, number, owner):
                table = make_table(group, first, owner)
            yield table
            group, first, size = [], number + 1, 0
    if group:
        with _explain_rows(first, first + len(group) - 1, owner):
            table = make_table(group, first, owner)
        yield table


@contextmanager
def _explain_rows(first: int, last: int, owner: str) -> Iterator[None]:
    """Raise ConfigError for a row in the block that contains itself, or is no plain dict."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        which = f"row {first:,}" if first == last else f"one of the rows {first:,} to {last:,}"
        raise ConfigError(f"{which} of {owner} can't be read ({describe_error(error)})") from None


def are_texts(values: Sequence[str]) -> bool:
    """Return whether a list of strings holds texts to compute, and not paths of files.

    Raises:
        ConfigError: it may be either.
    """
    written = [value for value in values if value.strip()]  # a blank string may be either
    paths = [value for value in written if _is_path_like(value)]
    if not paths and any(re.search(r"\S\s+\S", value) for value in written):
        return True
    if len(paths) == len(written):
        return False
    others = [value for value in written if not _is_path_like(value)]
    seen = f"{_shorten(others[0])} is no file that exists"
    if paths:
        seen += f", but {_shorten(paths[0])} looks like one"
    raise ConfigError(
        f"input is a list of strings, which may be paths or texts: {seen}. For paths, "
        'write input={"path": [...]}; for texts, input=[{"text": text} for text in texts]'
    )


def _is_path_like(value: str) -> bool:
    if re.match(r"[A-Za-z][\w+.-]*://", value) or is_chain(value):
        return True
    if "\n" in value:
        return False
    if format_of(value) is not None or _exists(value):
        return True
    return re.search(r"\s", value) is None and re.search(r"[/\\*]|^[.~]", value) is not None


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, or no path at all
        return False


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
