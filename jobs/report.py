"""What a run says when it is done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Report:
    """Counts over the whole output, and beside them what this run added.

    rows: input rows accounted for; done: those with a result; dead: dead letters.
    seconds: this run's, start-up included; rows_per_second: rows this run added in that time.
    added: rows, done, dead and splits of this run.
    padding: share of the forward passes' tokens that was padding; None if nothing was computed.
    truncated: `rows` of the whole output whose text was cut, and the `tokens` that they lost; None,
        and left out of the JSON, if none was.
    """

    rows: int
    done: int
    dead: int
    seconds: float
    rows_per_second: float
    output: str
    splits: int
    added: dict[str, int]
    padding: float | None = None
    truncated: dict[str, int] | None = None

    def to_json(self) -> str:
        """One line."""
        fields = asdict(self)
        if self.truncated is None:
            del fields["truncated"]
        return json.dumps(fields)

    def __str__(self) -> str:
        return "\n".join(f"{name:<14}{value}" for name, value in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._lines()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> list[tuple[str, str]]:
        lines: list[tuple[str, Any]] = [
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
        ]
        if self.added["splits"]:
            lines.append(
                (
                    "this run",
                    f"{self.added['rows']:,} rows in {self.seconds:.1f} s, "
                    f"{self.rows_per_second:.0f} rows/s",
                )
            )
        else:
            lines.append(("this run", f"nothing left to do ({self.seconds:.1f} s)"))
        if self.padding is not None:
            lines.append(("padding", f"{self.padding:.1%} of the tokens computed"))
        if self.truncated is not None:
            rows, tokens = self.truncated["rows"], self.truncated["tokens"]
            lines.append(("truncated", f"{rows:,} rows lost {tokens:,} tokens of their texts"))
        lines.append(("output", f"{self.output} ({self.splits:,} parts)"))
        if self.dead:
            lines.append(("dead letters", f"{self.output.rstrip('/')}/_pipemill/dead-letter/"))
        return lines
