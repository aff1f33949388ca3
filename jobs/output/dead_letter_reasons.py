"""Why rows are dead letters: each reason with a count and an example."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.output.part_file import from_ranges
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.output.state_table import dead_letters
from pipemill.actors.split import Split

from .ledger import Ledger
from .split_plan import Plan

_FILES = 500  # files of dead letters that are read, evenly from first to last
_FILES_AT_ONCE = 32
_MESSAGES = 100_000  # different messages that are read: a second or two
_SHOWN = 10
_WHY = ["stage", "error", "message"]
_LONGEST = 300  # characters of a message

# What differs between messages of the same kind: quoted values (except names of columns), paths,
# numbers, and lists of these.
_QUOTED = r"""b?'(?:[^'\\]|\\.)*'(?!\w)|b?"(?:[^"\\]|\\.)*"(?!\w)"""
_VALUES = [
    (re.compile(rf"(?<![\w'\"])(?<!column )(?<!columns )(?<!parameter )(?:{_QUOTED})"), "'…'"),
    (re.compile(r"(?:[\w.+-]+:/)?(?<!\w)(?:[\w.~-]*/)+[^\s,;:()]+"), "PATH"),
    (re.compile(r"0x[0-9a-fA-F]+|[+-]?\d+(?:[.,_]\d+)*(?:e[+-]?\d+)?"), "N"),
    (re.compile(r"(N|'…'|PATH)(?:, (?:N|'…'|PATH))+"), r"\1"),
]


@dataclass(frozen=True)
class Reasons:
    """Kinds of dead letters, the most frequent first, as a report shows them.

    Attributes:
        dead_letters: the stage, error and count of each kind, the message of one letter, and where
            its row is (`example`): the input file, the row there if known, the split and its row.
        kinds: how many kinds there are; the list holds only the first ones.
        read: how many dead letters were counted.
    """

    dead_letters: list[dict[str, Any]]
    kinds: int
    read: int


NO_REASONS = Reasons([], 0, 0)


def collect_reasons(ledger: Ledger, plan: Plan, most: int = _SHOWN) -> Reasons:
    """Read the dead letters of an output: all of them, or a sample of the files if very many."""
    names = ledger.dead_letter_files()
    parts = ledger.parts() if names else set()
    failed = plan.splits.select(lambda split: split.part in names and split.part in parts)
    read = failed[:: max(-(-len(failed) // _FILES), 1)]
    counts: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], tuple[Split, PartFooter, dict[str, Any]]] = {}
    items, left = list(zip(read, ledger.footers(read), strict=True)), _MESSAGES
    while items and left > 0:  # some at a time: all messages of 500 files may take gigabytes
        some, items = items[:_FILES_AT_ONCE], items[_FILES_AT_ONCE:]
        messages = ledger.map_parallel(lambda item: _count_messages(ledger, *item), some)
        for (split, footer), letters in zip(some, messages, strict=True):
            for letter in letters[: max(left, 0)]:
                kind = (letter["stage"], letter["error"], strip_values(letter["message"]))
                counts[kind] += letter["count"]
                first.setdefault(kind, (split, footer, letter))
            left -= len(letters)
    firsts = _find_first_rows(plan.splits, {split.number for split, _, _ in first.values()})
    shown = [_make_reason(*first[kind], count, firsts) for kind, count in counts.most_common(most)]
    return Reasons(shown, len(counts), counts.total())


def strip_values(message: str) -> str:
    """Return the message without the values in it."""
    kind = message[: 2 * _LONGEST]
    for values, instead in _VALUES:
        kind = values.sub(instead, kind)
    return kind[:_LONGEST]


def describe_reason(reason: Mapping[str, Any]) -> str:
    """Return one line: how many, why, and where one of them is."""
    message = " ".join(str(reason["message"]).split())
    return (
        f"{reason['count']:,} × {reason['stage']}: {reason['error']}: {message} "
        f"({place_of(reason)})"
    )


def rename_dead_reasons(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a result for its JSON line, where the reasons are `dead_letters`."""
    return {"dead_letters" if n == "dead_reasons" else n: value for n, value in fields.items()}


def format_reasons(
    dead_letters: list[dict[str, Any]], kinds: int, read: int, dead: int
) -> list[str]:
    """Return a line per reason, and lines about what these leave out."""
    lines = [describe_reason(reason) for reason in dead_letters]
    if kinds > len(dead_letters):
        lines.append(f"… and {kinds - len(dead_letters):,} more kinds")
    if read < dead:
        lines.append(f"(of {read:,} of the {dead:,} dead letters)")
    return lines


def place_of(reason: Mapping[str, Any]) -> str:
    """Return the file and the row of the example."""
    example = reason["example"]
    if example["row"] is None:
        return f"{example['input']}, row {example['split_row']} of split {example['split']}"
    return f"{example['input']}, row {example['row']}"


def _make_reason(
    split: Split,
    footer: PartFooter,
    letter: dict[str, Any],
    count: int,
    firsts: Mapping[int, int | None],
) -> dict[str, Any]:
    row, start = letter["row"], firsts[split.number]
    path: str = split.path
    place: int | None = None if start is None else start + row
    if split.bundle:
        path, place = footer.find_row(split, row)
    return {
        "stage": letter["stage"],
        "error": letter["error"],
        "message": letter["message"][:_LONGEST],
        "count": count,
        "example": {
            "input": path,
            "row": place,
            "split": split.number,
            "split_row": row,
        },
    }


def _find_first_rows(splits: Iterable[Split], wanted: set[int]) -> dict[int, int | None]:
    """Return the first row of each of these splits in its file; None where the plan lacks it."""
    firsts: dict[int, int | None] = {}
    path = ""
    rows: int | None = None
    for split in splits:
        if split.path != path:
            path, rows = split.path, 0
        if split.number in wanted:
            firsts[split.number] = rows
        rows = None if rows is None or split.rows is None else rows + split.rows
    return firsts


def _count_messages(ledger: Ledger, split: Split, footer: PartFooter) -> list[dict[str, Any]]:
    """Return the distinct messages of the dead letters of a split, with the count and the first
    row of each; an empty list if the file is gone or damaged."""
    try:
        with dead_letters(ledger.store, split.part).open() as file:
            table = pq.read_table(file, columns=["row", *_WHY])
    except (OSError, KeyError, pa.ArrowException):
        return []
    # A retry that was killed leaves letters of rows that have an answer.
    dead = np.isin(table["row"].to_numpy(), from_ranges(footer.dead_rows))
    rows = table.filter(pa.array(dead))
    grouped = rows.group_by(_WHY, use_threads=False).aggregate([("row", "min"), ("row", "count")])
    return grouped.rename_columns([*_WHY, "row", "count"]).to_pylist()
