"""Know each format by its name and its files' suffixes. Knowing the names imports no source."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from pipemill.errors import ConfigError, did_you_mean

from ..storage.file_names import COMPRESSIONS, find_suffix, name_of

if TYPE_CHECKING:
    from .base import FileSource

_SOURCES = {
    "parquet": "parquet:ParquetSource",
    "jsonl": "jsonl:JsonlSource",
    "csv": "csv:CsvSource",
    "text": "text:TextSource",
    "arrow": "arrow:ArrowSource",
    "webdataset": "webdataset:WebDatasetSource",
    "files": "files:FilesSource",
}
# Where another package names the formats that it brings: name = "module:Class" in pyproject.toml.
ENTRY_POINTS = "pipemill.sources"


def format_names() -> list[str]:
    """Return the names of all formats, those of other packages last."""
    points = {point.name for point in entry_points(group=ENTRY_POINTS)}
    return [*_SOURCES, *sorted(points - _SOURCES.keys())]


def find_source(name: str) -> type[FileSource]:
    """Return the source of a format, built in or of another package.

    Raises:
        ConfigError: no format has this name, or the package that brings it is broken.
    """
    if home := _SOURCES.get(name):
        module, attribute = home.split(":")
        return getattr(import_module(f"pipemill.actors.sources.{module}"), attribute)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return _load(point)
    hint = did_you_mean(name, format_names())
    raise ConfigError(f"input.format: no such format as {name!r}; {hint}")


@cache
def list_sources() -> dict[str, type[FileSource]]:
    """Return the source of each format, without those of broken packages.

    A broken package is an error only where a job names its format.
    """
    sources = {}
    for name in format_names():
        try:
            sources[name] = find_source(name)
        except ConfigError:
            continue
    return sources


@cache
def _map_suffixes() -> dict[str, str]:
    formats: dict[str, str] = {}
    for name, source in list_sources().items():
        for suffix in source.suffixes:
            formats.setdefault(suffix, name)
    return formats


def format_of(path: str) -> str | None:
    """Return the format that a file's suffix tells, or None."""
    name = name_of(path)
    suffix = find_suffix(name)
    if suffix not in COMPRESSIONS:
        return _map_suffixes().get(suffix)
    format = _map_suffixes().get(find_suffix(name[: -len(suffix)]))
    return format if format is not None and list_sources()[format].compressible else None


def clear_cache() -> None:
    """Forget which sources there are, after a package was installed in a running process."""
    list_sources.cache_clear()
    _map_suffixes.cache_clear()


def _load(point: EntryPoint) -> type[FileSource]:
    from .base import FileSource

    try:
        source = point.load()
        if not (isinstance(source, type) and issubclass(source, FileSource)):
            raise TypeError("it is not a subclass of pipemill.actors.sources.base.FileSource")
        if getattr(source, "name", None) != point.name:
            raise ValueError(f"its name is {getattr(source, 'name', None)!r}")
    except Exception as error:
        raise ConfigError(
            f"input.format: the format {point.name!r} of {point.value} (entry point "
            f"{ENTRY_POINTS}) can't be used: {type(error).__name__}: {error}"
        ) from error
    return source
