"""Read some rows of the input of a job, from several places in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from pipemill.actors.batch import Batch, join_lacking
from pipemill.actors.sources.base import Source
from pipemill.actors.split import Split

from pipemill.errors import RunError, StoreError

from ...output.split_plan import RowEstimate

_PLACES = 4
# After so many splits without a row, or that can't be read, no others are looked at: there may be
# millions.
_MOST_FRUITLESS = 1000


@dataclass(frozen=True)
class RowSample:
    """Some rows of an input.

    Attributes:
        rows: as many as were wanted, or all there are, in the order of the input.
        unread: how many rows are left out because the source could not read them.
        whole: the rows of the input, as far as is known.
        is_exact: whether they are counted; else they are estimated.
        lacking: why a column has no values in the files that lack it, by name.
    """

    rows: pa.Table
    unread: int
    whole: int
    is_exact: bool
    lacking: Mapping[str, str]

    def to_batch(self) -> Batch:
        """Return the rows as the stages take them."""
        return Batch(self.rows, lacking=self.lacking)


def sample_rows(
    source: Source, splits: Sequence[Split], count: int, places: int = _PLACES
) -> RowSample:
    """Read `count` rows from `places` places.

    Raises RunError if no row can be read, or from a StoreError if the store does not answer.
    """
    estimate = RowEstimate(splits)
    tables: list[pa.Table] = []
    lacking: list[Mapping[str, str]] = []
    left, unread, reasons = count, 0, []
    fruitless = 0
    chosen = np.unique(np.linspace(0, max(len(splits) - 1, 0), places).astype(int)).tolist()
    # Where the chosen splits hold too few rows, the others follow.
    others = (number for number in range(len(splits)) if number not in chosen)
    for turn, number in enumerate(chain(chosen if splits else [], others)):
        if left <= 0 or fruitless == _MOST_FRUITLESS:
            break
        try:
            batch = source.read(splits[number])
        except StoreError as error:  # nor would it answer for the next split
            raise RunError(f"{error}; run again when that has passed") from error
        except Exception as error:  # another file may be readable
            reasons.append(str(error))
            fruitless += 1
            continue
        estimate.see(splits[number], batch.rows.num_rows)
        take = min(-(-left // max(len(chosen) - turn, 1)), batch.rows.num_rows)
        live = batch.ok_rows()
        tables.append(batch.rows.take(pa.array(live[live < take])))
        lacking.append(batch.lacking)
        fruitless += not tables[-1].num_rows
        unread += take - tables[-1].num_rows
        reasons += [failure.message for row, failure in batch.failures.items() if row < take]
        left -= take
    rows = pa.concat_tables(tables) if tables else None
    if rows is None or not rows.num_rows:
        why = reasons[0] if reasons else "the input is empty"
        raise RunError(f"no input rows could be read: {why}")
    return RowSample(
        rows=rows.combine_chunks(),
        unread=unread,
        whole=estimate.total(),
        is_exact=estimate.is_exact,
        lacking=join_lacking(tables, lacking),
    )
