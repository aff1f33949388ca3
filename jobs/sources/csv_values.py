"""From the bytes of CSV records to columns: each value of its type, or its row's failure."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pipemill.actors.isolate import isolate

from .lines import in_place


def inferred(data: bytes, names: list[str], delimiter: str) -> pa.Schema:
    return _table(data, names, delimiter, pa.csv.ConvertOptions())[0].schema


def parsed(
    data: bytes, names: list[str], delimiter: str, count: int, schema: pa.Schema
) -> tuple[pa.Table, dict[int, BaseException]]:
    """`count` rows, with nulls for those that failed, and why they did."""
    kinds = {field.name: field.type for field in schema}
    options = pa.csv.ConvertOptions(column_types=kinds, include_columns=schema.names)
    failed: dict[int, BaseException] = {}
    try:
        table, odd = _table(data, names, delimiter, options)
    except pa.ArrowInvalid:
        raw = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()), include_columns=schema.names
        )
        table, odd = _table(data, names, delimiter, raw)
    rows = np.setdiff1d(np.arange(count), odd)
    if len(rows) != table.num_rows:
        raise ValueError(f"{count} records are {table.num_rows + len(odd)} to Arrow")
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
    whole = in_place([(rows, pa.table(columns, schema=schema))], count, schema)
    live = np.setdiff1d(np.arange(count), list(failed))
    return in_place([(live, whole.take(pa.array(live)))], count, schema), failed


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
        return _table(b"".join(quoted), [field.name], ",", options)[0][0].combine_chunks()

    pieces, wrong = isolate(np.arange(len(values)), convert)
    kind = pa.schema([field])
    done = [(numbers, pa.table([array], schema=kind)) for numbers, array in pieces]
    return in_place(done, len(values), kind)[0].combine_chunks(), wrong


def _table(
    data: bytes, names: list[str], delimiter: str, convert: pa.csv.ConvertOptions
) -> tuple[pa.Table, list[int]]:
    """The records that have as many fields as there are names, and the numbers of the others."""
    odd: list[int] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        odd.append(row.number - 1)
        return "skip"

    if not data.strip():
        return pa.table({name: pa.nulls(0) for name in names}), odd
    read = pa.csv.ReadOptions(
        use_threads=False, column_names=names, block_size=min(len(data) + 1, 2**31 - 1)
    )
    parse = pa.csv.ParseOptions(
        delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
    )
    return pa.csv.read_csv(io.BytesIO(data), read, parse, convert), odd
