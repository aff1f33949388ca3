"""Some rows of a job's input, read through its own source, from several places in it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pipemill.actors.sources import Source

from pipemill.errors import RunError

from ..output.split_plan import RowEstimate, Split

_PLACES = 4


@dataclass(frozen=True)
class RowSample:
    """rows: as many as were wanted, or all there are; neighbours in the input are neighbours here.

    unread: rows among them that the source could not read, and that are left out.
    whole: the rows of the input, as far as is known.
    """

    rows: pa.Table
    unread: int
    whole: int


def sample_rows(
    source: Source, splits: list[Split], count: int, places: int = _PLACES
) -> RowSample:
    """Raises RunError if no row can be read."""
    estimate = RowEstimate(splits)
    tables: list[pa.Table] = []
    left, unread, reasons = count, 0, []
    chosen = np.unique(np.linspace(0, max(len(splits) - 1, 0), places).astype(int))
    # Where the chosen splits hold too few rows, the others follow.
    order = [*chosen, *np.setdiff1d(np.arange(len(splits)), chosen)] if splits else []
    for turn, number in enumerate(order):
        if left <= 0:
            break
        try:
            batch = source.read(json.loads(splits[number].to_json()))
        except Exception as error:  # a file that cannot be read at all: another may
            reasons.append(str(error))
            continue
        estimate.see(splits[number], batch.rows.num_rows)
        take = min(-(-left // max(len(chosen) - turn, 1)), batch.rows.num_rows)
        live = batch.ok_rows()
        tables.append(batch.rows.take(pa.array(live[live < take])))
        unread += take - tables[-1].num_rows
        reasons += [failure.message for row, failure in batch.failures.items() if row < take]
        left -= take
    rows = pa.concat_tables(tables) if tables else None
    if rows is None or not rows.num_rows:
        why = f": {reasons[0]}" if reasons else ": it has none"
        raise RunError(f"of the input's first rows none could be read{why}")
    return RowSample(rows.combine_chunks(), unread, estimate.total())
