"""Store a `datasets.Dataset` as Parquet in the output, where workers and later runs find it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.output.layout import STORED_INPUT
from pipemill.actors.sources.schemas.file_schemas import cast_rows, simplify_schema

from pipemill.errors import ConfigError

from ..config import hf_dataset

if TYPE_CHECKING:
    from ..config.job import Job
    from .ledger import Ledger

_ROWS, _ROWS_WITH_FILES = 1000, 50
_SHARD_BYTES = 128 * 2**20
_COMPLETE = "_complete.json"


def with_stored_dataset(job: Job, ledger: Ledger) -> Job:
    """Return the job; one whose input is a dataset reads it from the output instead."""
    if not hf_dataset.is_dataset(job.input.path):
        return job
    stored = {
        "path": _store(job.input.path, ledger),
        "format": "parquet",
        "storage_options": job.output.storage_options,
    }
    return job.model_copy(update={"input": job.input.model_copy(update=stored)})


def needs_storing(job: Job, ledger: Ledger) -> bool:
    """Return whether `with_stored_dataset` has something to write."""
    return hf_dataset.is_dataset(job.input.path) and not _is_complete(
        _folder(job.input.path), ledger
    )


def _store(dataset: Any, ledger: Ledger) -> str:
    """Write the dataset, unless it was written before; return its folder. Raises ConfigError."""
    folder = _folder(dataset)
    if not _is_complete(folder, ledger):
        count = 0
        for count, shard in enumerate(_shards(dataset), 1):
            sink = io.BytesIO()
            pq.write_table(shard, sink, row_group_size=_ROWS)
            ledger.write(f"{folder}/{count - 1:06}.parquet", sink.getvalue())
        record = {"rows": len(dataset), "files": count}
        ledger.write(f"{folder}/{_COMPLETE}", json.dumps(record).encode())
    return f"{ledger.path.rstrip('/')}/{folder}"


def _folder(dataset: Any) -> str:
    return f"{STORED_INPUT}/{hf_dataset.find_fingerprint(dataset)}"


def _is_complete(folder: str, ledger: Ledger) -> bool:
    return ledger.read(f"{folder}/{_COMPLETE}") is not None


def _shards(dataset: Any) -> Iterator[pa.Table]:
    tables: list[pa.Table] = []
    for table in _tables(dataset):
        tables.append(table)
        if sum(table.nbytes for table in tables) >= _SHARD_BYTES:
            yield pa.concat_tables(tables)
            tables = []
    if tables:
        yield pa.concat_tables(tables)


def _tables(dataset: Any) -> Iterator[pa.Table]:
    """Yield the rows in order; the files that they refer to become bytes, never decoded."""
    from datasets.features.features import require_storage_embed
    from datasets.table import embed_table_storage, table_cast

    features = dataset.features
    has_files = any(require_storage_embed(feature) for feature in features.values())
    notes = features.arrow_schema.metadata
    schema, first = simplify_schema(features.arrow_schema).with_metadata(notes), 0
    if not len(dataset):
        yield schema.empty_table()
    for rows in dataset.with_format("arrow").iter(_ROWS_WITH_FILES if has_files else _ROWS):
        table = table_cast(rows, features.arrow_schema)
        if has_files:
            try:
                table = embed_table_storage(table)
            except Exception as error:  # the files may lie on any filesystem
                raise ConfigError(
                    f"can't read a file that rows {first} to {first + len(rows)} of the dataset "
                    f"refer to: {type(error).__name__}: {error}"
                ) from error
        yield cast_rows(table, schema)
        first += len(rows)
