"""Which files a job reads, and in what format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipemill.actors.storage.file_formats import COMPRESSED, COMPRESSIONS, SUFFIXES, format_of
from pipemill.actors.storage.filesystem import absolute
from pipemill.actors.storage.listing import InputFile, Listing, list_below, output_place

from pipemill.errors import ConfigError

from .saved_dataset import saved_files

# Beside files of other formats these are what those refer to, or notes.
_LOOSE = {"files", "text"}


def list_files(
    paths: str | list[str],
    format: str,
    options: Mapping[str, Any],
    output: str | None,
    output_options: Mapping[str, Any] | None = None,
) -> tuple[list[InputFile], str]:
    """The input's files in order, each once, and their format.

    Folders are read recursively, sorted by name; names that start with "." or "_", and whatever
    lies in the output, are left out. So are files of other formats below a folder or a glob, if
    the format is named; if it is "auto", media and text files beside files of another format.
    """
    outside = output_place(output, output_options or {}) if output is not None else None
    found: dict[str, InputFile] = {}
    for path in map(absolute, [paths] if isinstance(paths, str) else paths):
        folder = format in ("auto", "arrow") and format_of(path) is None
        saved = saved_files(path, options) if folder else None
        if saved is None:
            saved = _chosen(list_below(path, options, outside), format)
        for file in saved:
            found.setdefault(file.path, file)
    formats = {format_of(path) for path in found} if format == "auto" else {format}
    if len(formats) > 1:
        raise ConfigError(
            f"the input mixes formats ({', '.join(sorted(map(str, formats)))}): "
            "name one in input.format, or a narrower input.path"
        )
    return list(found.values()), str(formats.pop())


def _chosen(listing: Listing, format: str) -> list[InputFile]:
    """The files of a listing that are input."""
    files = listing.files
    if format == "auto" and not listing.named:
        told = {format_of(file.path) for file in files} - {None}
        wanted = told - _LOOSE or told
        files = [file for file in files if format_of(file.path) in wanted]
    elif format not in ("auto", "files") and not listing.named:
        files = [file for file in files if format_of(file.path) == format] or files
    refused = not files or any(format_of(file.path) == "parquet" for file in files)
    if listing.table and format in ("auto", "parquet") and refused:
        raise ConfigError(listing.table)
    if not files:
        count = len(listing.files) + listing.left_out
        what = f"{count} files, none of them" if count else "no file"
        raise ConfigError(f"no input at {listing.path}: found {what} ({_looked_for()})")
    if format == "auto" and format_of(files[0].path) is None:
        raise ConfigError(
            f"can't tell the format of {listing.path} from its name: "
            f"set input.format to one of {', '.join(SUFFIXES)}"
        )
    return files


def _looked_for() -> str:
    plain = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    return (
        f"looked for {plain}; {', '.join(COMPRESSED)} also with {' or '.join(COMPRESSIONS)}. "
        "Files of any name are read if input.format says what they are"
    )
