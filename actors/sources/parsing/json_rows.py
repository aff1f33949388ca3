"""Parse the lines of a JSON Lines file into rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..reading import Reading
from .json_parser import Parser


@dataclass
class JsonRows:
    """The rows of a split.

    rows: an object per line; empty for a line that failed.
    wheres: the line or byte of each row, for messages.
    failed: the errors, by row.
    left_out: how many rows have a value that no column holds, by key.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    wheres: list[str] = field(default_factory=list)
    failed: dict[int, BaseException] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, parser: Parser, line: bytes, where: str, reading: Reading) -> None:
        """Parse a line; it fails if a column that the task reads is there twice."""
        row: dict[str, Any] = {}
        try:
            row = parse_object(parser, line, where)
        except (ValueError, RecursionError) as error:
            self.failed[len(self.rows)] = error
        else:
            for name in parser.repeated:
                if name in reading.kinds and name in row:
                    repeated = ValueError(f"column {name!r} is there twice ({where})")
                    self.failed[len(self.rows)] = repeated
                    row[name] = None
                else:
                    self.left_out[name] += 1
        self.rows.append(row)
        self.wheres.append(where)


def parse_object(parser: Parser, line: bytes, where: str) -> dict[str, Any]:
    """Parse a line that must hold an object. Raises ValueError with the place of the line."""
    try:
        row = parser.parse(line)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 ({error.reason}): name another encoding in input.encoding"
        ) from None
    except RecursionError:
        raise ValueError(f"{where} is JSON that is nested too deeply") from None
    except ValueError as error:
        message = f"{where} is not JSON"
        if isinstance(error, json.JSONDecodeError):  # which tells the place in the line
            raise json.JSONDecodeError(f"{message}: {error.msg}", error.doc, error.pos) from None
        raise ValueError(f"{message}: {error}") from None
    if not isinstance(row, dict):
        shown = line.decode(errors="replace").strip()[:80]
        raise ValueError(f"{where} must be a JSON object, not {shown!r}")
    return row
