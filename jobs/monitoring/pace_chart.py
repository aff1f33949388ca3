"""The line of a chart of rows per second, and its axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..output.text_table import format_duration, format_number

WIDTH, HEIGHT = 1000, 300
_BINS = 60
_UNITS = {"s": 1, "min": 60, "h": 3600}
_STEPS = (1, 2, 5, 10, 20, 30)  # seconds or minutes between two ticks
_MOST_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class PaceChart:
    """A line of steps in a box of WIDTH by HEIGHT.

    Attributes:
        points: of the line, as SVG takes them.
        rates, times: the ticks of the axes: (place from 0 to 100 %, text).
        starts: where runs began, in % of the width.
        note: what it shows, in words.
    """

    points: str
    rates: list[tuple[float, str]]
    times: list[tuple[float, str]]
    starts: list[float]
    note: str


def draw_pace(
    pace: list[tuple[float, float]], starts: list[float], rows: int, note: str
) -> PaceChart | None:
    """Draw rows per second over seconds; None for less than two steps.

    Args:
        pace: (the end of each step, rows per second in it).
        starts: seconds at which runs began.
        rows: all rows.
    """
    if len(pace) < 2:
        return None
    end = pace[-1][0]
    top = _round_up(max(rate for _, rate in pace))
    points, before = [], 0.0
    for time, rate in pace:
        y = HEIGHT * (1 - rate / top)
        points += [f"{WIDTH * before / end:.1f},{y:.1f}", f"{WIDTH * time / end:.1f},{y:.1f}"]
        before = time
    return PaceChart(
        points=" ".join(points),
        rates=[(100 * share, format_number(top * share)) for share in (0, 0.5, 1)],
        times=_list_times(end),
        starts=[100 * start / end for start in starts[1:]],
        note=f"{rows:,} rows in {format_duration(end)}. {note}",
    )


def compute_pace(written: list[tuple[float, int]]) -> list[tuple[float, float]]:
    """Return the pace of parts that were written at these times; [] if that is one moment."""
    if len(written) < 2 or written[-1][0] <= written[0][0]:
        return []
    times = np.array([time for time, _ in written]) - written[0][0]
    # The first part says when, but not how long it took.
    rows = np.array([0, *(count for _, count in written[1:])])
    counts, edges = np.histogram(times, min(_BINS, len(written)), weights=rows)
    return [
        (float(end), float(count / (end - start)))
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
    ]


def _list_times(end: float) -> list[tuple[float, str]]:
    """Return the ticks of an axis from 0 to `end` seconds, at round times."""
    least = end / _MOST_STEPS
    steps = [(step, unit) for unit in ("s", "min") for step in _STEPS]
    enough = [(step, unit) for step, unit in steps if step * _UNITS[unit] >= least]
    step, unit = enough[0] if enough else (_round_up(least / _UNITS["h"]), "h")
    if least < 1:
        step = _round_up(least)
    seconds = step * _UNITS[unit]
    ticks = range(math.floor(end / seconds + 1e-9) + 1)  # of 0.3 / 0.1, too
    return [(100 * seconds * i / end, f"{step * i:,g} {unit}") for i in ticks]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, …"""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-3)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
