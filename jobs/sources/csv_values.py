"""From the bytes of CSV records to columns: each value of its type, or its row's failure."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pipemill.actors.isolate import isolate

from .lines import in_place
from .records import Record


def inferred(data: bytes, names: list[str], delimiter: str, found: Sequence[Record]) -> pa.Schema:
    """found: the records in `data`."""
    data, _ = _of_width(data, len(names), found)
    return _table(data, names, delimiter, pa.csv.ConvertOptions()).schema


def parsed(
    data: bytes, names: list[str], delimiter: str, found: Sequence[Record], schema: pa.Schema
) -> tuple[pa.Table, dict[int, BaseException]]:
    """A row for each record in `data`, with nulls for those that failed, and why they did."""
    data, odd = _of_width(data, len(names), found)
    kinds = {field.name: field.type for field in schema}
    options = pa.csv.ConvertOptions(column_types=kinds, include_columns=schema.names)
    failed: dict[int, BaseException] = {}
    try:
        table = _table(data, names, delimiter, options)
    except pa.ArrowInvalid:
        raw = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()), include_columns=schema.names
        )
        table = _table(data, names, delimiter, raw)
    rows = np.setdiff1d(np.arange(len(found)), odd)
    if len(rows) != table.num_rows:
        raise ValueError(f"{len(rows)} records are {table.num_rows} to Arrow")
    for row in odd:
        failed[row] = ValueError(f"the row has not {len(names)} fields, as the header has")
    columns = []
    for field in schema:
        values = table[field.name].combine_chunks()
        if values.type != field.type:
            values, wrong = _converted(values, field)
            for i, error in wrong:
                failed.setdefault(int(rows[i]), error)
        columns.append(values)
    whole = in_place([(rows, pa.table(columns, schema=schema))], len(found), schema)
    live = np.setdiff1d(np.arange(len(found)), list(failed))
    return in_place([(live, whole.take(pa.array(live)))], len(found), schema), failed


def _of_width(data: bytes, width: int, found: Sequence[Record]) -> tuple[bytes, list[int]]:
    """The records that have so many fields, and the numbers of the others.

    Arrow's own handler of such rows is not called for one that is not UTF-8.
    """
    odd = [i for i, record in enumerate(found) if len(record.fields) != width]
    if not odd:
        return data, odd
    kept = (record for record in found if len(record.fields) == width)
    return b"".join(data[record.start : record.stop] for record in kept), odd


def _converted(
    values: pa.Array, field: pa.Field
) -> tuple[pa.Array, list[tuple[int, BaseException]]]:
    """Bytes as values of the field's type, and those that are none."""
    options = pa.csv.ConvertOptions(column_types={field.name: field.type})

    def convert(some: np.ndarray) -> pa.Array:
        # As the file would have them; quoted, so that each stays one field.
        quoted = (
            b'"' + value.replace(b'"', b'""') + b'"\n'
            for value in values.take(pa.array(some)).to_pylist()
        )
        return _table(b"".join(quoted), [field.name], ",", options)[0].combine_chunks()

    pieces, wrong = isolate(np.arange(len(values)), convert)
    kind = pa.schema([field])
    done = [(numbers, pa.table([array], schema=kind)) for numbers, array in pieces]
    return in_place(done, len(values), kind)[0].combine_chunks(), wrong


def _table(
    data: bytes, names: list[str], delimiter: str, convert: pa.csv.ConvertOptions
) -> pa.Table:
    if not data.strip(b"\r\n"):
        return pa.table({name: pa.nulls(0) for name in names})
    read = pa.csv.ReadOptions(
        use_threads=False, column_names=names, block_size=min(len(data) + 1, 2**31 - 1)
    )
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return pa.csv.read_csv(io.BytesIO(data), read, parse, convert)
