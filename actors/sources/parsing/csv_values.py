"""From the bytes of CSV records to columns: each value of its type, or its row's failure."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow import types

from ...arrow_arrays import scatter_rows
from ...faults.bisect import bisect_failures
from ..reading import Reading
from .csv_records import Record
from .json_values import Parser, fit_value, is_nested
from .misfits import Misfit

# What stands for no value in a column that is not of text. Not "nan", which is a number.
_NULLS = ["", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "Null"]
_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
# Numbers of these digits have one spelling, so that a column of them gives its text back.
_PLAIN_NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d{1,12})?([eE][+-]?\d{1,2})?$"

Wrong = list[tuple[int, BaseException]]


def infer_types(
    data: bytes, names: list[str], delimiter: str, found: Sequence[Record], kinds: dict[str, str]
) -> dict[str, pa.DataType]:
    """The types of those columns that the task reads as something else than text.

    found: the records in `data`. kinds: of the columns in question.
    """
    asked = [name for name in names if kinds.get(name) in ("number", "flag", "any")]
    if not asked:
        return {}
    data, _ = _of_width(data, len(names), found)
    raw = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(asked, pa.binary()), include_columns=asked
    )
    table = _table(data, names, delimiter, raw)
    return {name: _kind(table[name].combine_chunks(), kinds[name]) for name in asked}


def _kind(values: pa.Array, kind: str) -> pa.DataType:
    """The type of a column by its first values; text where they are of no other type."""
    try:
        texts = values.cast(pa.string()).drop_null()
    except pa.ArrowInvalid:
        return pa.string()
    texts = texts.filter(pc.invert(pc.is_in(texts, pa.array(_NULLS))))
    if not len(texts):
        return pa.string() if kind == "any" else pa.bool_() if kind == "flag" else pa.int64()
    if kind == "any" and not pc.all(pc.match_substring_regex(texts, _PLAIN_NUMBER)).as_py():
        return pa.string()
    for type in (pa.bool_(),) if kind == "flag" else (pa.int64(), pa.float64()):
        if not from_text(texts.cast(pa.binary()), pa.field("", type), str)[1]:
            return type
    return pa.string()


def parse_columns(
    data: bytes,
    names: list[str],
    delimiter: str,
    found: Sequence[Record],
    schema: pa.Schema,
    reading: Reading,
    where: Callable[[Record], str],
) -> tuple[pa.Table, dict[int, BaseException]]:
    """A row for each record in `data`, with nulls for those that failed, and why they did."""
    data, odd = _of_width(data, len(names), found)
    # Of the others (an output of before says their types) Arrow's own reading is what it was.
    strict = {f.name for f in schema if reading.is_wanted(f.name) and not _is_text(f.type)}
    kinds = {f.name: pa.binary() if f.name in strict else f.type for f in schema}
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
        count = len(found[row].fields)
        failed[row] = ValueError(
            f"the row has {count} fields, not {len(names)} fields, as the header has "
            f"({where(found[row])})"
        )
    columns = []
    for field in schema:
        values = table[field.name].combine_chunks()
        if field.name in strict or values.type != field.type:
            convert = from_text if field.name in strict else _convert
            values, wrong = convert(values, field, lambda i: where(found[int(rows[i])]))
            for i, error in wrong:
                failed.setdefault(int(rows[i]), error)
        columns.append(values)
    whole = scatter_rows([(rows, pa.table(columns, schema=schema))], len(found), schema)
    live = np.setdiff1d(np.arange(len(found)), list(failed))
    return scatter_rows([(live, whole.take(pa.array(live)))], len(found), schema), failed


def _is_text(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind)


def _of_width(data: bytes, width: int, found: Sequence[Record]) -> tuple[bytes, list[int]]:
    """The records that have so many fields, and the numbers of the others.

    Arrow's own handler of such rows is not called for one that is not UTF-8.
    """
    odd = [i for i, record in enumerate(found) if len(record.fields) != width]
    if not odd:
        return data, odd
    kept = (record for record in found if len(record.fields) == width)
    return b"".join(data[record.start : record.stop] for record in kept), odd


def from_text(
    values: pa.Array, field: pa.Field, where: Callable[[int], str]
) -> tuple[pa.Array, Wrong]:
    """Fields of CSV as values of the type that the task or the user wants; none is narrowed."""
    if types.is_null(values.type):  # there is no row
        return pa.nulls(len(values), field.type), []
    if _is_binary(field.type):
        return values.cast(field.type), []
    if _is_text(field.type):
        return _convert(values, field, where)
    nothing = pc.is_in(values, pa.array(_NULLS).cast(pa.binary()))
    given = np.flatnonzero(~nothing.to_numpy(zero_copy_only=False))
    texts, place = values.take(pa.array(given)), lambda i: where(int(given[i]))
    if is_nested(field.type):
        made, wrong = _from_json(texts, field, place)
    else:
        made, wrong = _convert(texts, field, place, null_values=[])
        if types.is_floating(field.type):
            wrong += _narrow(texts, made, field, place)
    wrong = [(int(given[i]), error) for i, error in wrong]
    kind = pa.schema([field])
    whole = scatter_rows([(given, pa.table([made], schema=kind))], len(values), kind)
    return whole[0].combine_chunks(), wrong


def _narrow(texts: pa.Array, made: pa.Array, field: pa.Field, where: Callable[[int], str]) -> Wrong:
    """Whole numbers that no float of this width is, and numbers that are too large for it."""
    wrong: Wrong = []
    for i, (text, value) in enumerate(zip(texts.to_pylist(), made.to_pylist(), strict=True)):
        if value is None or len(text) < 4:
            continue
        spelled = text.decode()
        whole = _WHOLE.fullmatch(spelled)
        endless = math.isinf(value) and "inf" not in spelled.lower()
        if endless or (whole and int(spelled) != value):
            wrong.append((i, Misfit(field.name, spelled, field.type, where(i))))
    return wrong


def _from_json(
    texts: pa.Array, field: pa.Field, where: Callable[[int], str]
) -> tuple[pa.Array, Wrong]:
    """Lists and structs, which a field of CSV holds as JSON."""
    parser, found = Parser(), []
    wrong: Wrong = []
    for i, text in enumerate(texts.to_pylist()):
        try:
            found.append(parser.parse(text))
        except (ValueError, RecursionError):
            found.append(None)
            shown = text.decode(errors="replace")
            wrong.append((i, Misfit(field.name, shown, field.type, where(i))))
    made, misfits = fit_value(found, field.type, rounds=True)
    wrong += [(i, Misfit(field.name, found[i], field.type, where(i))) for i in misfits]
    return made, wrong


def _convert(
    values: pa.Array, field: pa.Field, where: Callable[[int], str], **options: Any
) -> tuple[pa.Array, Wrong]:
    """Bytes as values of the field's type, and those that are none."""
    conversion = pa.csv.ConvertOptions(column_types={field.name: field.type}, **options)

    def convert(some: np.ndarray) -> pa.Array:
        # As the file would have them; quoted, so that each stays one field.
        quoted = (
            b'"' + value.replace(b'"', b'""') + b'"\n'
            for value in values.take(pa.array(some)).to_pylist()
        )
        return _table(b"".join(quoted), [field.name], ",", conversion)[0].combine_chunks()

    pieces, bad = bisect_failures(np.arange(len(values)), convert)
    kind = pa.schema([field])
    done = [(numbers, pa.table([array], schema=kind)) for numbers, array in pieces]
    whole = scatter_rows(done, len(values), kind)[0].combine_chunks()
    return whole, [(i, _explain(values[i].as_py(), field, where(i))) for i, _ in bad]


def _explain(value: bytes, field: pa.Field, where: str) -> BaseException:
    try:
        return Misfit(field.name, value.decode(), field.type, where)
    except UnicodeDecodeError:
        return ValueError(
            f"column {field.name!r} is {value[:60]!r}, which is not UTF-8 ({where}): name another "
            "encoding in input.encoding"
        )


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
