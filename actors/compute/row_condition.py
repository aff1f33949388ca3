"""A condition on the columns of a row, written as a text: "label == 'spam' and score > 0.9"."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], pc.Expression]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_HOW = (
    "write columns, values, == != < <= > >=, in [..], is None, and, or, not, as in "
    "\"label == 'spam' and score > 0.9\""
)


@dataclass(frozen=True)
class RowCondition:
    """A condition on rows, in the syntax of Python. It is not true where a column is null.

    Args:
        text: the condition.

    Raises:
        ValueError: for a text that is not a condition.
    """

    text: str

    def __post_init__(self) -> None:
        self._expression()

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
        try:
            self.find_rows(schema.empty_table())
        except pa.ArrowException as error:
            types = ", ".join(f"{name} is {schema.field(name).type}" for name in self.columns)
            raise ValueError(f"{self.text!r} can't be tested: {types} ({error})") from None

    def find_rows(self, rows: pa.Table) -> np.ndarray:
        """Return the numbers of the rows for which it is true."""
        numbered = rows.select(self.columns).append_column("", pa.array(np.arange(rows.num_rows)))
        return numbered.filter(self._expression())[""].to_numpy()

    def _parse(self) -> ast.expr:
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"{self.text!r} is not a condition: {_HOW}") from None

    def _expression(self) -> pc.Expression:
        if not self.columns:
            raise ValueError(f"{self.text!r} names no column: {_HOW}")
        try:
            return self._convert(self._parse())
        except (pa.ArrowException, TypeError) as error:  # from values that Arrow can't hold
            raise ValueError(f"{self.text!r} is not a condition ({error}): {_HOW}") from None

    def _convert(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.Name():
                return pc.field(node.id)
            case ast.BoolOp():
                combine = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return reduce(combine, map(self._convert, node.values))
            case ast.UnaryOp(op=ast.Not()):
                return ~self._convert(node.operand)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
                return reduce(operator.and_, (self._compare(*pair) for pair in pairs))
        return pc.scalar(self._read_value(node))

    def _compare(self, how: ast.cmpop, left: ast.expr, right: ast.expr) -> pc.Expression:
        one = self._convert(left)
        if isinstance(how, ast.In | ast.NotIn):
            values = self._read_value(right)
            if not isinstance(values, list | tuple):
                raise ValueError(f"in {self.text!r} a list must follow `in`: {_HOW}")
            found = one.isin(pa.array(values))
            # A null is in no list, and not outside of one, either.
            return found & one.is_valid() if isinstance(how, ast.In) else ~found & one.is_valid()
        if isinstance(how, ast.Is | ast.IsNot):
            if self._read_value(right) is not None:
                raise ValueError(f"in {self.text!r} only None may follow `is`: {_HOW}")
            return one.is_null() if isinstance(how, ast.Is) else one.is_valid()
        return _COMPARE[type(how)](one, self._convert(right))

    def _read_value(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError):
            raise ValueError(
                f"{self.text!r} holds {ast.unparse(node)!r}, which is neither a column nor a "
                f"value: {_HOW}"
            ) from None
