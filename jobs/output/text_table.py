"""Tables of text: aligned lines in a log, a table of rich on a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

from pipemill.errors import escape_controls

if TYPE_CHECKING:
    from rich.padding import Padding

_GAP = 2  # spaces between columns
_FACT_WIDTH = 14


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of cells.

    header: The columns' names. Without them the first column names what the others say.
    right: The columns that hold numbers, by position.
    widths: The least width of the first columns, so that tables under each other line up.
    most: The most that a cell widens its column; longer ones do not move the cells of the others.
    indent: Spaces before each line.
    """

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    right: frozenset[int] = frozenset()
    widths: Sequence[int] = ()
    most: int = 1000
    indent: int = 0

    def __str__(self) -> str:
        return "\n".join(self._make_lines())

    def _make_lines(self) -> Iterator[str]:
        rows = [self.header, *self.rows] if self.header else self.rows
        rows = [[escape_controls(cell) for cell in row] for row in rows]
        longest = [min(max(map(len, cells)), self.most) for cells in zip(*rows, strict=True)]
        widths = [max(pair) for pair in zip_longest(longest, self.widths, fillvalue=0)]
        for row in rows:
            cells = [
                f"{cell:>{width}}" if column in self.right else f"{cell:<{width}}"
                for column, (cell, width) in enumerate(zip(row, widths, strict=False))
            ]
            yield (" " * self.indent + (" " * _GAP).join(cells)).rstrip()

    def to_html(self) -> str:
        """Return a table element. Cells are text: what looks like HTML is escaped."""
        parts = [self._make_html_row("th", self.header, "th")] if self.header else []
        first = "td" if self.header else "th"
        parts += [self._make_html_row(first, row, "td") for row in self.rows]
        return f"<table>{''.join(parts)}</table>"

    def _make_html_row(self, first: str, row: Sequence[str], other: str) -> str:
        cells = []
        for column, cell in enumerate(row):
            tag = other if column else first
            side = "right" if column in self.right else "left"
            cells.append(f"<{tag} style='text-align:{side}'>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    def __rich__(self) -> Padding:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=None, show_header=bool(self.header), pad_edge=False, padding=(0, _GAP, 0, 0)
        )
        names = self.header or [""] * (len(self.rows[0]) if self.rows else 0)
        for column, (name, width) in enumerate(zip_longest(names, self.widths)):
            table.add_column(
                Text(escape_controls(name)),
                style="" if self.header or column else "bold",
                justify="right" if column in self.right else "left",
                min_width=width,
                overflow="fold",
            )
        for row in self.rows:
            # As it is: what looks like markup may be a row's.
            table.add_row(*(Text(escape_controls(cell)) for cell in row))
        return Padding(table, (0, 0, 0, self.indent), expand=False)


# What a result shows, from top to bottom.
Block: TypeAlias = str | TextTable


def make_fact_table(pairs: Iterable[tuple[str, str]]) -> TextTable:
    """Return a table of names and what is to say about each."""
    return TextTable(rows=list(pairs), widths=(_FACT_WIDTH - _GAP,))


def format_duration(seconds: float) -> str:
    """Return seconds, minutes or hours in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def format_count(count: int, noun: str) -> str:
    """Return a number of things: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_number(value: float) -> str:
    """Return a number with three digits, or as a whole number: not 1.23e+03."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def join_blocks(blocks: Iterable[Block]) -> str:
    """Return the blocks as plain text."""
    return "\n".join(
        escape_controls(block) if isinstance(block, str) else str(block) for block in blocks
    )


def render_html(blocks: Iterable[Block]) -> str:
    """Return the blocks as HTML. Everything in them is escaped."""
    return "".join(
        block.to_html()
        if isinstance(block, TextTable)
        else f"<div style='white-space:pre-wrap'>{escape(block)}</div>"
        for block in blocks
        if block != ""
    )


class Shown:
    """A result that shows its blocks: as text when it is printed, as HTML in a notebook."""

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        raise NotImplementedError

    def __str__(self) -> str:
        return join_blocks(self.blocks())

    def _repr_html_(self) -> str:
        return render_html(self.blocks())
