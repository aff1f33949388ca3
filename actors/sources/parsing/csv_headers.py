"""Read the header of a CSV file: which columns it names, and whether it is one."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import chain
from typing import IO

from pipemill.errors import ConfigError

from ...storage.file_names import COMPRESSIONS, name_of
from ...storage.input_file import InputFile
from ..schemas.file_schemas import find_repeated_name
from .csv_records import Dialect, Record, find_records

# How a page begins that a server sends instead of the file.
_PAGES = ("<!doctype", "<html", "<?xml")


def find_header(stream: IO[bytes], dialect: Dialect) -> Record | None:
    """Read the header from the start of a file, without the byte order mark before it."""
    first = stream.readline()
    rest = first.removeprefix(codecs.BOM_UTF8)
    # Not iterated over, which would read ahead.
    lines = chain([rest] if rest else [], iter(stream.readline, b""))
    return next(find_records(lines, dialect, start=len(first) - len(rest)), None)


def is_not_header(header: Record) -> bool:
    """Tell whether the first line is that of an error page, or not text."""
    first = header.fields[0].lstrip().lower()
    controls = (c for field in header.fields for c in field if c < " " and c not in "\t\r\n")
    return first.startswith(_PAGES) or any(controls)


def find_foreign_name(header: Record) -> str | None:
    """Return why a header can't be read, if it has a name that is not UTF-8."""
    for name in (text.encode("latin-1") for text in header.fields):
        try:
            name.decode()
        except UnicodeDecodeError:
            return (
                f"its header has the name {name[:60]!r}, which is not UTF-8: name another encoding "
                "in input.encoding"
            )
    return None


def parse_column_names(header: Record) -> list[str]:
    """Return the names of the columns, as text."""
    # Older outputs may have columns whose names hold a replacement character.
    names = [field.encode("latin-1").decode(errors="replace") for field in header.fields]
    # Spreadsheets end lines with commas for columns that are empty. pandas names them so.
    several = names.count("") > 1
    return [name or (f"Unnamed: {i}" if several else "") for i, name in enumerate(names)]


def find_common_names(files: Sequence[InputFile], headers: Sequence[list[str]]) -> list[str]:
    """Return the names of all files' columns. Raises ConfigError that names a file that differs."""
    for file, names in zip(files, headers, strict=True):
        if odd := set(names) ^ set(headers[0]):
            raise ConfigError(
                f"{file.path} and {files[0].path} have different columns: "
                f"{', '.join(sorted(odd))} is only in one of them"
            )
        if (twice := find_repeated_name(names)) is not None:
            raise ConfigError(f"{file.path} has two columns named {twice!r}: rename one")
    return headers[0]


def find_delimiter(path: str) -> str:
    """Return what stands between the fields of a file, by its name."""
    name = name_of(path).lower()
    for end in COMPRESSIONS:
        name = name.removesuffix(end)
    return "\t" if name.endswith((".tsv", ".tab")) else ","
