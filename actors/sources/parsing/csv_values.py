"""Turn the bytes of CSV records into columns. A value that does not fit makes its row fail."""

from __future__ import annotations

import codecs
import io
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow import types

from ...arrow_arrays import scatter, scatter_rows
from ...columns import is_string
from ...faults.bisect import bisect_failures
from ..reading import Reading
from .csv_records import Dialect, Record
from .json_parser import Parser
from .json_values import fit_values, is_nested
from .misfits import Misfit
from .text_casts import cast_texts

# The spellings of null in columns other than text. "nan" is a number.
_NULLS = ["", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "Null"]
_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
# Numbers that become the same text again.
_PLAIN_NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d{1,12})?([eE][+-]?\d{1,2})?$"

Wrong = list[tuple[int, BaseException]]


def infer_types(
    data: bytes,
    names: list[str],
    dialect: Dialect,
    records: Sequence[Record],
    kinds: dict[str, str],
) -> dict[str, pa.DataType]:
    """Infer the types of the columns that the task reads as something else than text.

    records: the records in `data`.
    kinds: what the task reads each column as.
    """
    inferred = [name for name in names if kinds.get(name) in ("number", "flag", "any")]
    if not inferred:
        return {}
    data, _ = _keep_width(data, len(names), records)
    raw = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(inferred, pa.binary()), include_columns=inferred
    )
    table = _read_table(data, names, dialect, raw)
    return {name: _infer_type(table[name].combine_chunks(), kinds[name]) for name in inferred}


def _infer_type(values: pa.Array, kind: str) -> pa.DataType:
    """Infer the type of a column from its first values; text if no other type fits."""
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
        if not parse_fields(texts.cast(pa.binary()), pa.field("", type), str)[1]:
            return type
    return pa.string()


def parse_columns(
    data: bytes,
    names: list[str],
    dialect: Dialect,
    records: Sequence[Record],
    schema: pa.Schema,
    reading: Reading,
    where: Callable[[Record], str],
) -> tuple[pa.Table, dict[int, BaseException]]:
    """Return a row for each record in `data`, and the errors by row.

    A row that failed keeps the values that could be read.
    """
    data, odd = _keep_width(data, len(names), records)
    # An older output may give other columns a type. Arrow converts those, as it did then.
    strict = {f.name for f in schema if reading.is_wanted(f.name) and not is_string(f.type)}
    kinds = {f.name: pa.binary() if f.name in strict else f.type for f in schema}
    table = _read_typed_or_raw(data, names, dialect, kinds)
    failed: dict[int, BaseException] = {}
    rows = np.setdiff1d(np.arange(len(records)), odd)
    if len(rows) != table.num_rows:
        raise ValueError(f"Arrow finds {table.num_rows} records instead of {len(rows)}")
    for row in odd:
        count = len(records[row].fields)
        failed[row] = ValueError(
            f"the row has {count} {'field' if count == 1 else 'fields'}, the header {len(names)} "
            f"({where(records[row])})"
        )
    columns = []
    for field in schema:
        values = table[field.name].combine_chunks()
        if field.name in strict or values.type != field.type:
            convert = parse_fields if field.name in strict else _convert
            values, wrong = convert(values, field, lambda i: where(records[int(rows[i])]))
            for i, error in wrong:
                failed.setdefault(int(rows[i]), error)
        columns.append(values)
    table = pa.table(columns, schema=schema)
    return scatter_rows([(rows, table)], len(records), schema), failed


def _read_typed_or_raw(
    data: bytes, names: list[str], dialect: Dialect, kinds: dict[str, pa.DataType]
) -> pa.Table:
    """Read columns in some types; all of them as bytes if a value does not fit its type."""
    typed = pa.csv.ConvertOptions(column_types=kinds, include_columns=list(kinds))
    try:
        return _read_table(data, names, dialect, typed)
    except pa.ArrowInvalid:
        raw = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()), include_columns=list(kinds)
        )
        return _read_table(data, names, dialect, raw)


def _is_binary(kind: pa.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind)


def _keep_width(data: bytes, width: int, records: Sequence[Record]) -> tuple[bytes, list[int]]:
    """Return the bytes of the records with `width` fields, and the numbers of the others.

    Arrow does not call its handler of invalid rows for a row that is not UTF-8.
    """
    odd = [i for i, record in enumerate(records) if len(record.fields) != width]
    if not odd:
        return data, odd
    kept = (record for record in records if len(record.fields) == width)
    return b"".join(data[record.start : record.stop] for record in kept), odd


def parse_fields(
    values: pa.Array, field: pa.Field, where: Callable[[int], str]
) -> tuple[pa.Array, Wrong]:
    """Convert fields of CSV to the type that the task or the user wants, without loss."""
    if types.is_null(values.type):  # no rows
        return pa.nulls(len(values), field.type), []
    if _is_binary(field.type):
        return values.cast(field.type), []
    if is_string(field.type):
        return _convert(values, field, where)
    null = pc.is_in(values, pa.array(_NULLS).cast(pa.binary()))
    valid = np.flatnonzero(~null.to_numpy(zero_copy_only=False))
    texts = values.take(pa.array(valid))

    def where_valid(i: int) -> str:
        return where(int(valid[i]))

    if is_nested(field.type):
        converted, wrong = _parse_json(texts, field, where_valid)
    else:
        converted, wrong = _convert(texts, field, where_valid, null_values=[])
        if types.is_floating(field.type):
            wrong += find_loss(texts, converted, field, where_valid)
    wrong = [(int(valid[i]), error) for i, error in wrong]
    return scatter([(valid, converted)], len(values), field.type), wrong


def find_loss(
    texts: pa.Array, numbers: pa.Array, field: pa.Field, where: Callable[[int], str]
) -> Wrong:
    """Find whole numbers that a float of this width can't hold exactly, and too large numbers."""
    wrong: Wrong = []
    for i, (text, value) in enumerate(zip(texts.to_pylist(), numbers.to_pylist(), strict=True)):
        if value is None or len(text) < 4:
            continue
        spelled = text.decode()
        is_whole = _WHOLE.fullmatch(spelled)
        is_too_large = math.isinf(value) and "inf" not in spelled.lower()
        # Python makes no whole number of thousands of digits.
        if is_too_large or (is_whole and Decimal(spelled.strip()) != value):
            wrong.append((i, Misfit(field.name, spelled, field.type, where(i))))
    return wrong


def _parse_json(
    texts: pa.Array, field: pa.Field, where: Callable[[int], str]
) -> tuple[pa.Array, Wrong]:
    """Parse lists and structs, which a field of CSV holds as JSON."""
    parser = Parser()
    parsed: list[Any] = []
    wrong: Wrong = []
    for i, text in enumerate(texts.to_pylist()):
        try:
            parsed.append(parser.parse(text))
        except (ValueError, RecursionError):
            parsed.append(None)
            shown = text.decode(errors="replace")
            wrong.append((i, Misfit(field.name, shown, field.type, where(i))))
    array, misfits = fit_values(parsed, field.type, rounds=True)
    wrong += [(i, Misfit(field.name, parsed[i], field.type, where(i))) for i in misfits]
    return array, wrong


def _convert(
    values: pa.Array, field: pa.Field, where: Callable[[int], str], **options: Any
) -> tuple[pa.Array, Wrong]:
    """Convert bytes to the field's type; return the values, and an error for those that fail."""
    kind = pa.float64() if types.is_float16(field.type) else field.type  # Arrow reads no halves
    conversion = pa.csv.ConvertOptions(column_types={field.name: kind}, **options)

    def convert(rows: np.ndarray) -> pa.Array:
        some = values.take(pa.array(rows))
        if types.is_decimal(kind):  # of which Arrow reads numbers that do not fit as others
            return cast_texts(pc.utf8_trim_whitespace(some.cast(pa.string())), kind)
        # Quoted, so that each stays one field.
        quoted = (b'"' + value.replace(b'"', b'""') + b'"\n' for value in some.to_pylist())
        table = _read_table(b"".join(quoted), [field.name], Dialect(), conversion)
        return table[0].combine_chunks().cast(field.type, safe=False)

    pieces, bad = bisect_failures(np.arange(len(values)), convert)
    converted = scatter(pieces, len(values), field.type)
    return converted, [(i, _explain(values[i].as_py(), field, where(i))) for i, _ in bad]


def _explain(value: bytes, field: pa.Field, where: str) -> BaseException:
    try:
        return Misfit(field.name, value.decode(), field.type, where)
    except UnicodeDecodeError:
        return ValueError(
            f"column {field.name!r} is {value[:60]!r}, which is not UTF-8 ({where}): name another "
            "encoding in input.encoding"
        )


def _read_table(
    data: bytes, names: list[str], dialect: Dialect, convert: pa.csv.ConvertOptions
) -> pa.Table:
    if not data.strip(b"\r\n"):
        return pa.table({name: pa.nulls(0) for name in names})
    if data.startswith(codecs.BOM_UTF8):
        data = codecs.BOM_UTF8 + data  # Arrow drops one, also where it is part of a value
    read = pa.csv.ReadOptions(
        use_threads=False, column_names=names, block_size=min(len(data) + 1, 2**31 - 1)
    )
    parse = pa.csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char='"' if dialect.quotes else False,
        newlines_in_values=dialect.quotes,
    )
    return pa.csv.read_csv(io.BytesIO(data), read, parse, convert)
