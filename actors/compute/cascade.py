"""Several tasks over the same rows, one after the other, each with its condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ..arrow_arrays import scatter_rows, take_rows
from ..batch import ROWS_OF, Batch
from .row_condition import RowCondition
from .stages import Stages


@dataclass(frozen=True, kw_only=True)
class CascadeStep:
    """One task of a cascade.

    Attributes:
        name: what messages call it.
        prefix: put before the names of the columns that it adds.
        stages: the loaded task.
        condition: on the input's columns and those that earlier steps add. Rows for which it is
            not true get nulls.
    """

    name: str
    prefix: str
    stages: Stages
    condition: RowCondition | None = None

    def results(self) -> pa.Schema:
        """Return the columns that it adds."""
        fields = self.stages.task.results()
        return pa.schema([field.with_name(f"{self.prefix}{field.name}") for field in fields])


class Cascade:
    """Loaded tasks that compute the same rows in turn. It stands where the stages of one do.

    Args:
        steps: in their order.
        schema: the columns of the rows.

    Raises:
        ValueError: two tasks add a column of the same name, or a condition names an unknown one.
    """

    def __init__(self, steps: Sequence[CascadeStep], schema: pa.Schema) -> None:
        self._by_name = {step.name: step for step in steps}
        added: dict[str, CascadeStep] = {}
        for step in steps:
            if step.condition is not None:
                results = [field for step in added.values() for field in step.results()]
                known = {field.name: field for field in [*schema, *results]}
                try:
                    step.condition.check(pa.schema(list(known.values())))
                except ValueError as error:
                    raise ValueError(f"where of {step.name}: {error}") from None
            for name in step.results().names:
                if (other := added.get(name)) is not None:
                    raise ValueError(
                        f"{other.name} and {step.name} both add the column {name!r}: give one of "
                        "them a name, which is put before its columns"
                    )
                added[name] = step

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the names of the steps."""
        return tuple(self._by_name)

    def process(self, batch: Batch) -> Batch:
        """Compute all tasks; a row that fails in one is not computed by the next."""
        for name in self.steps:
            batch = self.run_step(name, batch)
        return batch

    def run_step(self, name: str, batch: Batch) -> Batch:
        """Compute one task on the rows that its condition lets through, and add its columns."""
        step = self._by_name[name]
        rows = self._find_rows(step, batch)
        inputs = batch.rows.select(list(dict.fromkeys(step.stages.columns.values())))
        done = step.stages.process(Batch(take_rows(inputs, rows), lacking=batch.lacking))
        for row, failure in done.failures.items():
            named = replace(failure, stage=f"{failure.stage} of {name}")
            batch.failures.setdefault(int(rows[row]), named)
        # The budgets are those of one task, and the actor's time passes once: for the first task
        # that has rows.
        is_timed = "actor_seconds" in batch.stats
        batch.add_stats(
            **{
                key: amount
                for key, amount in done.stats.items()
                if not key.startswith("budget_") and not (is_timed and key == "actor_seconds")
            }
        )
        batch.add_stats(**{ROWS_OF + name: len(rows)})
        assert done.results is not None
        added = _place_rows(done.results, rows, batch.rows.num_rows).rename_columns(
            step.results().names
        )
        earlier = pa.table({}) if batch.results is None else batch.results
        results = pa.table(
            [*earlier.itercolumns(), *added.itercolumns()],
            schema=pa.schema([*earlier.schema, *added.schema]),
        )
        live = batch.ok_rows()  # a row that fails has no answers of earlier steps, either
        batch.results = _place_rows(take_rows(results, live), live, results.num_rows)
        return batch

    @staticmethod
    def _find_rows(step: CascadeStep, batch: Batch) -> np.ndarray:
        rows = batch.ok_rows()
        if step.condition is None:
            return rows
        known = {name: batch.rows[name] for name in batch.rows.column_names}
        if batch.results is not None:
            known |= {name: batch.results[name] for name in batch.results.column_names}
        named = {name: known[name] for name in step.condition.columns}
        return np.intersect1d(rows, step.condition.find_rows(pa.table(named)))


def _place_rows(results: pa.Table, rows: np.ndarray, count: int) -> pa.Table:
    """Return a table of `count` rows with the results at these rows, and nulls at the others."""
    return results if len(rows) == count else scatter_rows([(rows, results)], count, results.schema)
