"""Find the files that a job reads, and their format."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from pipemill.actors.sources.arrow import ArrowSource
from pipemill.actors.sources.files import FilesSource
from pipemill.actors.sources.parquet import ParquetSource
from pipemill.actors.sources.registry import find_source, format_names, format_of, list_sources
from pipemill.actors.sources.text import TextSource
from pipemill.actors.storage.file_names import COMPRESSIONS, find_suffix
from pipemill.actors.storage.filesystem import make_absolute
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.listing import Listing, list_below, locate_output
from pipemill.pipelines.loading.checkpoint import is_pointer

from pipemill.errors import ConfigError

from ..output.split_plan import Plan
from ..rows.hub_dataset import list_hub_files, parse_hub_dataset
from .saved_dataset import STATE, list_saved_files

_AUTO = "auto"
# What `datasets` writes beside the files of a dataset, as in a clone of one from the Hub.
_NOTES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
# What it keeps of a map, a filter or a shuffle, there or beside what `save_to_disk` wrote.
_CACHE = re.compile(r"cache-[0-9a-f]{16}(_\d{5}_of_\d{5})?\.arrow")
_POINTER_BYTES = range(50, 200)
_MOST_POINTERS = 1000  # files of these sizes that are looked into


class FoundFiles(NamedTuple):
    """The files of an input.

    Attributes:
        files: in order, each once.
        format: of all of them.
        notes: what users may not expect of them.
    """

    files: list[InputFile]
    format: str
    notes: list[str]


def list_files(
    paths: str | list[str],
    format: str,
    options: Mapping[str, Any],
    output: str | None,
    output_options: Mapping[str, Any] | None = None,
    stored: Plan | None = None,
    companion: str | None = None,
) -> FoundFiles:
    """Return the input's files, and their format.

    Folders are read recursively, sorted by name. Names that start with "." or "_" and files in
    the output are left out. So are, below a folder or a glob, files of other formats than a named
    one, and, if the format is "auto", media and text files beside files of another format; and,
    beside other files, outputs of pipemill in lower folders and what `datasets` keeps of a map.

    Args:
        stored: the plan of the output, if there is one.
        companion: the format that is read where there are only media and text files.

    Raises:
        ConfigError: there is no such file, or the files' formats differ.
    """
    outside = locate_output(output, output_options or {}) if output is not None else None
    files: dict[str, InputFile] = {}
    notes: list[str] = []
    for path in map(make_absolute, [paths] if isinstance(paths, str) else paths):
        listed = _list_by_description(path, format, options, stored)
        if listed is None:
            listing = list_below(path, options, outside)
            for without in (_leave_out_outputs, _leave_out_caches):
                listing, note = without(listing, format, stored)
                notes += note
            listed = _select(listing, format, companion)
        for file in listed:
            files.setdefault(file.path, file)
    formats = {format_of(path) for path in files} if format == _AUTO else {format}
    if len(formats) > 1:
        raise _explain_mixture(files, formats)
    _check_pointers(files.values())
    if formats != {FilesSource.name}:  # of which each file is a row, and may be a dead letter
        _check_links(files.values())
    return FoundFiles(list(files.values()), str(formats.pop()), notes)


def _list_by_description(
    path: str, format: str, options: Mapping[str, Any], stored: Plan | None
) -> Iterable[InputFile] | None:
    """Return the files that the Hub or `datasets` says a path stands for; None if neither does."""
    hub_dataset = parse_hub_dataset(path)
    if hub_dataset is not None and (format == _AUTO or "?" in path):
        return list_hub_files(hub_dataset, options, _list_paths(stored))
    is_query = "?" in path and "://" in path
    is_named = format_of(path) is not None or is_query
    may_be_saved = format in (_AUTO, ArrowSource.name) and not is_named
    return list_saved_files(path, options) if may_be_saved else None


def _explain_mixture(paths: Iterable[str], formats: Collection[str | None]) -> ConfigError:
    """Return the error of files of several formats."""
    saved = [path for path in paths if path.endswith(f"/{STATE}")]
    if saved and ArrowSource.name in formats:
        folder = saved[0].removesuffix(f"/{STATE}")
        more = f" and {len(saved) - 1:,} more" if len(saved) > 1 else ""
        return ConfigError(
            f"the input holds folders that datasets saved ({folder}{more}): name each of them "
            "in input.path, as a list"
        )
    return ConfigError(
        f"the input mixes formats ({', '.join(sorted(map(str, formats)))}): "
        "name one in input.format, or give a narrower input.path"
    )


def _check_links(files: Iterable[InputFile]) -> None:
    """Raise ConfigError for a link to nothing, which seems to be a file without rows."""
    for file in files:
        is_local = not file.size and "://" not in file.path
        if is_local and os.path.islink(file.path) and not os.path.exists(file.path):
            raise ConfigError(
                f"{file.path} is a link to {os.readlink(file.path)}, which does not exist: bring "
                "that file (of git-annex by `git annex get`), or remove the link"
            )


def _check_pointers(files: Iterable[InputFile]) -> None:
    """Raise ConfigError for pointers of Git LFS, which a clone may have in place of its files."""
    small = (f for f in files if f.size in _POINTER_BYTES and "://" not in f.path)
    for file in islice(small, _MOST_POINTERS):
        with suppress(OSError):
            if is_pointer(file.path):
                raise ConfigError(
                    f"{file.path} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
                    f"{os.path.dirname(file.path)}, or download the files again"
                )


def _leave_out_outputs(
    listing: Listing, format: str, stored: Plan | None
) -> tuple[Listing, list[str]]:
    """Return a listing without the parts of outputs among other files, and a note on them.

    Such parts hold the rows of these files once more. Where all files are parts, the input is
    these outputs. Raises ConfigError where it may be either.
    """
    parts = {file.path for files in listing.outputs.values() for file in files}
    rest = [file for file in listing.files if file.path not in parts]
    formats = {format_of(file.path) for file in rest} - {None}
    if format != _AUTO and not find_source(format).takes_any_file:
        formats &= {format}
    if not parts or not formats or any(path in parts for path in _list_paths(stored)):
        return listing, []
    folders = list(listing.outputs)
    if format == _AUTO and formats == {TextSource.name}:
        raise ConfigError(
            f"{listing.path} holds text files ({rest[0].path}) and an output of pipemill "
            f"({folders[0]}): name one of them, such as {listing.path.rstrip('/')}/*.txt"
        )
    more = f" and {len(folders) - 1:,} more" if len(folders) > 1 else ""
    note = (
        f"not read: {folders[0]}{more}, an output of pipemill below the input folder; if you "
        "want its rows, name its folder"
    )
    return replace(listing, files=rest), [note]


def _leave_out_caches(
    listing: Listing, format: str, stored: Plan | None
) -> tuple[Listing, list[str]]:
    """Return a listing without what `datasets` made of other files of it, and a note on that."""
    made = list(filter(_is_cache, listing.files))
    rest = [file for file in listing.files if not _is_cache(file)] if made else []
    if (
        not any(format_of(file.path) == ArrowSource.name for file in rest)
        or listing.named
        or not {file.path for file in made}.isdisjoint(_list_paths(stored))
    ):
        return listing, []
    more = f" and {len(made) - 1:,} more" if len(made) > 1 else ""
    note = (
        f"not read: {made[0].path}{more}, which datasets made of the rows by map, filter or "
        "shuffle; if you want its rows, name the file"
    )
    return replace(listing, files=rest), [note]


def _is_cache(file: InputFile) -> bool:
    return _CACHE.fullmatch(file.path.rpartition("/")[2]) is not None


def _list_paths(plan: Plan | None) -> Iterator[str]:
    """Yield the paths of the files that an output was planned for."""
    return (file.path for file in plan.files()) if plan else iter(())


def _select(listing: Listing, format: str, companion: str | None) -> list[InputFile]:
    """Return the files of a listing that are input."""
    files = listing.files
    for name in listing.special:
        if listing.named or format != _AUTO or format_of(name) is not None:
            raise ConfigError(
                f"{name} is a pipe, a socket or a device, and no file: name files, or pipe its "
                "rows to the command, with --input -"
            )
    if not listing.named:
        files = _select_format(files, format, companion)
    hides_table = not files or any(format_of(file.path) == ParquetSource.name for file in files)
    if listing.table and format in (_AUTO, ParquetSource.name) and hides_table:
        raise ConfigError(listing.table)
    if not files:
        if listing.nothing is not None:
            raise ConfigError(f"no input at {listing.path}: {listing.nothing}")
        what = f"found {len(listing.files) + listing.left_out} files, but no input among them"
        if hint := _explain_unread(listing.files):
            raise ConfigError(f"no input at {listing.path}: {what}; {hint}")
        raise ConfigError(f"no input at {listing.path}: {what} ({_list_suffixes()})")
    if format == _AUTO and format_of(files[0].path) is None:
        if hint := _explain_unread(files):
            raise ConfigError(f"can't read {listing.path}: {hint}")
        raise ConfigError(
            f"can't tell the format of {listing.path} from its name: "
            f"set input.format to one of {', '.join(format_names())}"
        )
    return files


# Files that users hold, but no source reads, with what does.
_UNREAD = {
    ".orc": "pyarrow.orc.read_table",
    ".avro": "polars.read_avro",
    ".xlsx": "pandas.read_excel",
    ".xls": "pandas.read_excel",
    ".ods": "pandas.read_excel",
    ".h5": "pandas.read_hdf",
    ".hdf5": "pandas.read_hdf",
    ".xml": "pandas.read_xml",
    ".dta": "pandas.read_stata",
    ".sas7bdat": "pandas.read_sas",
    ".sav": "pandas.read_spss",
    ".pkl": "pandas.read_pickle",
}

_COMPRESSED = (".7z", ".br", ".lz4", ".lzma", ".rar", ".snappy", ".z")


def _explain_unread(files: list[InputFile]) -> str | None:
    """Return how to read files that no source reads; None if that is not known."""
    for path in (file.path for file in files):
        suffix = find_suffix(path)
        if suffix == ".zip":
            url = f"zip://*{find_suffix(path[: -len(suffix)]) or '.jsonl'}::{path}"
            return f"a .zip is an archive: name the files in it by their suffix, as {url}"
        if suffix in _COMPRESSED:
            known = ", ".join(COMPRESSIONS)
            return f"{suffix} files are not unpacked: unpack them, or compress them as {known}"
        if suffix in _UNREAD:
            reader = _UNREAD[suffix]
            return (
                f"{suffix} files are not read: write them as Parquet, or pass their rows in Python "
                f"(pipemill.run(input={reader}({path!r}), …))"
            )
    return None


def _select_format(files: list[InputFile], format: str, companion: str | None) -> list[InputFile]:
    """Return the files of a folder or a glob that are read as a format."""
    files = [file for file in files if file.path.rpartition("/")[2] not in _NOTES] or files
    if format != _AUTO:
        if find_source(format).takes_any_file:
            return files
        return [file for file in files if format_of(file.path) == format] or files
    formats = {name for file in files if (name := format_of(file.path)) is not None}
    others = {name for name in formats if not find_source(name).is_companion}
    formats = others or formats & {companion} or formats
    return [file for file in files if format_of(file.path) in formats]


def _list_suffixes() -> str:
    sources = list_sources().values()
    suffixes = ", ".join(suffix for source in sources for suffix in source.suffixes)
    compressible = ", ".join(source.name for source in sources if source.compressible)
    return (
        f"known suffixes: {suffixes}; {compressible} also with {' or '.join(COMPRESSIONS)}. "
        "Files of other names are read if input.format names their format"
    )
