"""Delta Lake, Iceberg and Lance tables, read by their own libraries."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.sources.registry import format_of
from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.filesystem import decode_local_url, make_absolute, open_filesystem
from pipemill.actors.storage.table_formats import DELTA, ICEBERG, LANCE, find_table_mark
from pipemill.pipelines.loading.extras import advise_install

from pipemill.errors import ConfigError

from .cell_values import to_storable
from .held_rows import GROUP_ROWS, TableRows, split_reader

if TYPE_CHECKING:
    import deltalake
    import lance
    import pyiceberg.table

# Names for `input.format`, with the marks of the tables' folders.
FORMATS = {"delta": DELTA, "iceberg": ICEBERG, "lance": LANCE}
_TITLES = {"delta": "Delta Lake", "iceberg": "Iceberg", "lance": "Lance"}
# Stores that these libraries reach, too.
_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "file")
# Options of s3fs, and what the libraries call them.
_OPTIONS = {
    "key": ("AWS_ACCESS_KEY_ID", "s3.access-key-id"),
    "secret": ("AWS_SECRET_ACCESS_KEY", "s3.secret-access-key"),
    "token": ("AWS_SESSION_TOKEN", "s3.session-token"),
    "endpoint_url": ("AWS_ENDPOINT_URL", "s3.endpoint"),
    "region_name": ("AWS_REGION", "s3.region"),
}

# A reader of the rows, and the name of the snapshot that it reads.
Snapshot = tuple[pa.RecordBatchReader, str]


class LakeTable(TableRows):
    """A table that others may change: an output reads the snapshot that it began with.

    Args:
        format: a name in `FORMATS`.
        location: its folder or URL.
        open_snapshot: opens the table as it is now.
    """

    is_stream = True

    def __init__(self, format: str, location: str, open_snapshot: Callable[[], Snapshot]) -> None:
        self.name = f"the {_TITLES[format]} table {location}"
        self._format, self._location, self._open = format, location, open_snapshot

    @property
    def identity(self) -> str:
        return f"{self._format}-{hashlib.sha256(self._location.encode()).hexdigest()[:12]}"

    def describe(self) -> str:
        return self._location

    def tables(self) -> Iterator[pa.Table]:
        try:
            reader, self.snapshot = self._open()
        except ImportError as error:
            module = {"delta": "deltalake", "iceberg": "pyiceberg", "lance": "lance"}[self._format]
            raise ConfigError(
                f"{self.name} can't be read without {module} ({error}): {advise_install([module])}"
            ) from None
        except ConfigError:
            raise
        except Exception as error:  # of three libraries
            raise ConfigError(
                f"{self.name} can't be read: {' '.join(str(error).split())}"
            ) from error
        for rows in split_reader(reader):
            yield to_storable(rows, self.name)


def find_lake_table(path: object, format: str, options: Mapping[str, Any]) -> LakeTable | None:
    """Return the table that is at a path, or that its format says is there; None without one."""
    if not isinstance(path, str):
        return None
    # The libraries end a URL at a "#": a folder here is given as a path.
    location = make_absolute(decode_local_url(path).removeprefix("file://"))
    if format == "auto":
        format = _detect_format(location, options) or ""
    if format not in FORMATS:
        return None
    open_table = {"delta": _open_delta, "iceberg": _open_iceberg, "lance": _open_lance}[format]
    return LakeTable(format, location, lambda: open_table(location, options))


def hold_delta(table: deltalake.DeltaTable) -> LakeTable:
    """Return the rows of a Delta table that is open, in the version that it has."""
    return LakeTable("delta", table.table_uri, lambda: _scan_delta(table))


def hold_iceberg(table: pyiceberg.table.Table) -> LakeTable:
    """Return the rows of an Iceberg table that is open, perhaps from a catalog."""
    return LakeTable("iceberg", table.location(), lambda: _scan_iceberg(table))


def _detect_format(location: str, options: Mapping[str, Any]) -> str | None:
    """Return the format of the table in a folder; None for what is no table."""
    scheme, separator, _ = location.partition("://")
    if "::" in location or (separator and scheme not in _SCHEMES):
        return None
    is_pattern = re.search(r"[*?\[]", location) and not os.path.isdir(location)
    if is_pattern or format_of(location) is not None:
        return None
    filesystem, inner = open_filesystem(location, options)
    mark = retry_on_driver(lambda: find_table_mark(filesystem, inner.rstrip("/")), location)
    return next((name for name, own in FORMATS.items() if own == mark), None)


def _open_delta(location: str, options: Mapping[str, Any]) -> Snapshot:
    import deltalake

    return _scan_delta(deltalake.DeltaTable(location, storage_options=_rename(options, 0)))


def _scan_delta(table: deltalake.DeltaTable) -> Snapshot:
    return pa.RecordBatchReader.from_stream(table.scan()), f"version {table.version()}"


def _open_lance(location: str, options: Mapping[str, Any]) -> Snapshot:
    import lance

    dataset: lance.LanceDataset = lance.dataset(location, storage_options=_rename(options, 0))
    return dataset.scanner(batch_size=GROUP_ROWS).to_reader(), f"version {dataset.version}"


def _open_iceberg(location: str, options: Mapping[str, Any]) -> Snapshot:
    from pyiceberg.table import StaticTable

    metadata = _find_metadata(location, options)
    return _scan_iceberg(StaticTable.from_metadata(metadata, _rename(options, 1)))


def _scan_iceberg(table: pyiceberg.table.Table) -> Snapshot:
    snapshot = table.current_snapshot()
    name = "no snapshot" if snapshot is None else f"snapshot {snapshot.snapshot_id}"
    return table.scan().to_arrow_batch_reader(), name


def _find_metadata(location: str, options: Mapping[str, Any]) -> str:
    """Return the newest metadata file of an Iceberg table."""
    if location.endswith(".metadata.json"):
        return location
    filesystem, inner = open_filesystem(location, options)
    names = [
        name.rpartition("/")[2] for name in filesystem.ls(f"{inner.rstrip('/')}/metadata", False)
    ]
    numbered = [
        (int(match[1]), name)
        for name in names
        if (match := re.match(r"v?(\d+)\b.*\.metadata\.json$", name))
    ]
    if not numbered:
        raise ConfigError(f"{location}/metadata holds no metadata.json with a number: name it")
    latest = max(numbered)[0]
    if len(found := [name for number, name in numbered if number == latest]) > 1:
        raise ConfigError(
            f"{location}/metadata holds several files of the number {latest} "
            f"({', '.join(sorted(found))}), and only the table's catalog knows which one counts: "
            "name one of them as input.path, with input.format iceberg"
        )
    return f"{location.rstrip('/')}/metadata/{found[0]}"


def _rename(options: Mapping[str, Any], library: int) -> dict[str, str]:
    """Return the options of a store with the names that a table's library has for them."""
    plain = {**options, **options.get("client_kwargs", {})}
    plain.pop("client_kwargs", None)
    if unknown := sorted(set(plain) - set(_OPTIONS)):
        raise ConfigError(
            f"input.storage_options: {', '.join(unknown)} can't be used for a table; use "
            f"{', '.join(_OPTIONS)}, or the environment"
        )
    renamed = {_OPTIONS[name][library]: str(value) for name, value in plain.items()}
    if library == 0:  # of the other variables that s3fs reads, these libraries know all
        endpoint = renamed.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            renamed["AWS_ENDPOINT_URL"] = endpoint
            renamed["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
    return renamed
