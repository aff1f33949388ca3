"""A condition on the columns of a row, written as a text: "label == 'spam' and score > 0.9"."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..columns import is_number
from .arrow_comparison import (
    combine_flat,
    find_type,
    make_unknown,
    to_array,
    to_comparable,
    to_float,
    to_scalar,
)

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], pc.Expression]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
# Of more than some thousands Arrow's recursion ends the process.
_MOST = 500
_HOW = (
    "write columns (`in backticks` if they are no plain words), values, == != < <= > >=, in [..], "
    "is None, and, or, not, as in \"label == 'spam' and score > 0.9\""
)
# A text in quotes, a name in backticks, which are Python's for nothing else, a comment, or the end
# of a line.
_TOKENS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`([^`]+)`|#.*|\\?\n""")


@dataclass(frozen=True)
class RowCondition:
    """A condition on rows, in the syntax of Python. It is not true where a column is null.

    A column whose name is no word of Python is named in backticks: `c d` == 1.

    Args:
        text: the condition.

    Raises:
        ValueError: for a text that is not a condition.
    """

    text: str

    def __post_init__(self) -> None:
        self._build_expression()

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that it reads."""
        names = (node.id for node in ast.walk(self._parse()) if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(names))

    def check(self, schema: pa.Schema) -> None:
        """Raise ValueError if it can't be tested on rows with these columns."""
        for name in self.columns:
            if name not in schema.names:
                raise ValueError(
                    f"{self.text!r} names {name!r}, which is no column here: "
                    f"{', '.join(schema.names)}"
                )
            if schema.names.count(name) > 1:
                raise ValueError(f"{self.text!r} names {name!r}, but two columns are called that")
        try:
            self.find_rows(schema.empty_table())
        except pa.ArrowException:
            raise ValueError(self._explain(schema)) from None

    def find_rows(self, rows: pa.Table) -> np.ndarray:
        """Return the numbers of the rows for which it is true."""
        rows = to_comparable(rows.select(self.columns))
        numbered = rows.append_column("", pa.array(np.arange(rows.num_rows)))
        return numbered.filter(self._build_expression(rows.schema))[""].to_numpy()

    def _explain(self, schema: pa.Schema) -> str:
        """Return which part can't be tested on rows with these columns."""
        parsed = self._parse()
        parts = [node for node in ast.walk(parsed) if isinstance(node, ast.Compare)]
        part = next((one for one in parts if not self._suits(one, schema)), parsed)
        names = [node.id for node in ast.walk(part) if isinstance(node, ast.Name)]
        types = ", ".join(f"{name} is {schema.field(name).type}" for name in dict.fromkeys(names))
        text = ast.unparse(part)
        where = "" if part is parsed else f", in {self.text!r}"
        if not isinstance(part, ast.Compare):
            return f"{text!r} can't be tested: {types}; only what is true or false can be combined"
        texts = [name for name in names if pa.types.is_string(schema.field(name).type)]
        hint = (
            f"; compare it with a text, or, if it is one because CSV holds only texts, set "
            f"input.schema: {{{texts[0]}: int64}}"
            if texts
            else "; compare values of one type"
        )
        return f"{text!r} can't be tested{where}: {types}{hint}"

    def _suits(self, part: ast.expr, schema: pa.Schema) -> bool:
        """Tell whether a comparison can be tested on rows with these columns."""
        rows = to_comparable(schema.empty_table())
        try:
            rows.filter(self._convert(part, rows.schema))
        except pa.ArrowException:
            return False
        return True

    def _parse(self) -> ast.expr:
        names: dict[str, str] = {}

        def replace(token: re.Match[str]) -> str:
            if token[1] is None:
                return " " if token[0][0] == "#" or token[0][-1] == "\n" else token[0]
            word = f"_column_{len(names)}_"
            names[word] = token[1]
            return word

        try:
            parsed = ast.parse(_TOKENS.sub(replace, self.text).strip(), mode="eval").body
            for node in ast.walk(parsed):
                if isinstance(node, ast.Name):
                    node.id = names.get(node.id, node.id)
            return parsed
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"{self.text!r} is not a condition: {_HOW}") from None

    def _build_expression(self, schema: pa.Schema | None = None) -> pc.Expression:
        if not self.columns:
            raise ValueError(f"{self.text!r} names no column: {_HOW}")
        parsed = self._parse()
        count = sum(isinstance(node, ast.Name) for node in ast.walk(parsed))
        if count > _MOST:
            raise ValueError(
                f"a condition names columns {_MOST} times at most, not {count:,} times, as "
                f"{self.text[:60]!r}… does: compare a column with many values by `in [..]`"
            )
        try:
            return self._convert(parsed, schema or pa.schema([]))
        except RecursionError:
            raise ValueError(
                f"{self.text[:60]!r}… is nested too deeply: write it with fewer brackets and `not`"
            ) from None
        except (pa.ArrowException, TypeError) as error:  # from values that Arrow can't hold
            raise ValueError(f"{self.text!r} is not a condition ({error}): {_HOW}") from None

    def _convert(self, node: ast.expr, schema: pa.Schema) -> pc.Expression:
        match node:
            case ast.Name():
                return pc.field(node.id)
            case ast.BoolOp():
                combine = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return combine_flat(
                    combine, [self._convert(value, schema) for value in node.values]
                )
            case ast.UnaryOp(op=ast.Not()):
                return ~self._convert(node.operand, schema)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
                return combine_flat(operator.and_, [self._compare(*pair, schema) for pair in pairs])
        value = self._read_value(node)
        if value is None:
            raise ValueError(
                f"{self.text!r} compares with None, which is never true: write `is None` or "
                "`is not None`"
            )
        return pc.scalar(to_scalar(value, schema))

    def _compare(
        self, how: ast.cmpop, left: ast.expr, right: ast.expr, schema: pa.Schema
    ) -> pc.Expression:
        if not isinstance(how, ast.In | ast.NotIn | ast.Is | ast.IsNot):
            sides = self._align(left, right, schema), self._align(right, left, schema)
            return _COMPARE[type(how)](*sides)
        one = self._convert(left, schema)
        if isinstance(how, ast.In | ast.NotIn):
            return self._find_in_list(one, isinstance(how, ast.In), left, right, schema)
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise ValueError(f"in {self.text!r} only None may follow `is`: {_HOW}")
        return one.is_null() if isinstance(how, ast.Is) else one.is_valid()

    def _align(self, side: ast.expr, other: ast.expr, schema: pa.Schema) -> pc.Expression:
        """Return a side of a comparison in a type in which Arrow compares any of its values.

        Beside floats Arrow wants whole numbers that these hold exactly, and gives up otherwise.
        """
        value = self._convert(side, schema)
        kind, beside = find_type(side, schema), find_type(other, schema)
        if is_number(kind) and is_number(beside) and pa.types.is_floating(beside):
            return to_float(value, kind)
        text = side.value if isinstance(side, ast.Constant) else None
        if isinstance(text, str) and (pa.types.is_date(beside) or pa.types.is_timestamp(beside)):
            return pc.scalar(self._read_time(text, beside))
        return value

    def _read_time(self, text: str, kind: pa.DataType) -> pa.Scalar:
        try:
            return pa.scalar(text).cast(kind)
        except pa.ArrowInvalid:
            zone = getattr(kind, "tz", None) and ", with its zone (+02:00, or Z for UTC)"
            raise ValueError(
                f"in {self.text!r} {text!r} is compared with {kind}: write a date as 2024-12-31, "
                f"and a time as 2024-12-31 23:59:00{zone or ''}"
            ) from None

    def _find_in_list(
        self, one: pc.Expression, is_in: bool, left: ast.expr, right: ast.expr, schema: pa.Schema
    ) -> pc.Expression:
        if not isinstance(right, ast.List | ast.Tuple):
            raise ValueError(f"in {self.text!r} a list must follow `in`: {_HOW}")
        values = self._read_value(right)
        if None in values:
            raise ValueError(f"{self.text!r} has None in a list: write `or … is None` beside it")
        nulls = [field.name for field in schema if pa.types.is_null(field.type)]
        if isinstance(left, ast.Name) and left.id in nulls:  # in which Arrow finds no value
            return make_unknown()
        kind = find_type(left, schema)
        if is_number(kind) and all(type(value) in (int, float) for value in values):
            if pa.types.is_floating(kind):
                values = [float(value) for value in values]
                values += [0.0, -0.0] if 0.0 in values else []  # which Arrow's lists tell apart
            elif any(isinstance(value, float) for value in values):
                one = to_float(one, kind)
            elif pa.types.is_decimal(kind):
                most = 10 ** (kind.precision - kind.scale)  # Arrow gives up at larger ones
                values = [Decimal(value) for value in values if abs(value) < most]
        found = one.isin(to_array(values))
        # A null is in no list, and not outside of one, either.
        return pc.if_else(one.is_valid(), found if is_in else ~found, make_unknown())

    def _read_value(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            raise ValueError(
                f"{self.text!r} holds {ast.unparse(node)!r}, which is neither a column nor a "
                f"value: {_HOW}"
            ) from None
