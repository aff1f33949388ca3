"""The loop over the results of splits, for `run` and for `retry`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

from pipemill.actors.batch import add_counts
from pipemill.actors.split_result import SplitResult
from pipemill.actors.split_table import SplitTable

from pipemill.errors import ConfigError, RunError

from ..monitoring.failed_splits import FailedSplits
from ..monitoring.run_monitor import RunMonitor
from ..output.lease import Lease
from ..output.split_plan import RowEstimate
from ..planning.find_model import explain_load_error
from .placement import run_splits, stage_of
from .progress import Progress, log
from .split_work import SplitWork


def count_rows(result: SplitResult) -> Counter[str]:
    """Return what a worker counted: rows, dead, and its work."""
    return Counter({"rows": result.rows or 0, "dead": result.dead or 0, **result.work})


def accept_all(totals: Counter[str]) -> None:
    """Let the loop go on."""


@dataclass(frozen=True, kw_only=True)
class SplitLoop:
    """Processes splits: counts them, shows progress, and stops if it must.

    Attributes:
        work: what processing takes.
        lease: of the output.
        label: names the progress bar.
        estimate: the rows that are expected.
        unfinished: a sentence for a loop that stopped early, from the splits done and those to do.
        before: rows, and dead ones among them, that the output had before.
        count: what the result of a split counts.
        check: called with the totals while splits are left; it may raise RunError.
    """

    work: SplitWork
    lease: Lease
    label: str
    estimate: RowEstimate
    unfinished: Callable[[int, int], str]
    before: Mapping[str, int] = field(default_factory=dict)
    count: Callable[[SplitResult], Counter[str]] = count_rows
    check: Callable[[Counter[str]], None] = accept_all

    def run(self, splits: SplitTable) -> Counter[str]:
        """Process splits, and return what they counted, with their number as `splits`.

        Raises:
            RunError: if splits are left. It says what stopped them.
            ConfigError: if the model can't be loaded, or a library is missing.
        """
        totals: Counter[str] = Counter(splits=0)
        failed = FailedSplits(splits)
        # A worker that outlives this run writes no part that the plan of a later one lacks.
        sink = replace(self.work.sink, lease=self.lease.number)
        results = run_splits(replace(self.work, sink=sink), splits)
        stage = stage_of(self.work)
        # Closed while Ray is there: what is open would start another one.
        with (
            closing(results),
            Progress(self.label, self.estimate.total(), self.before, stage) as progress,
            RunMonitor(
                self.work, self.lease, self.before, len(splits), self.estimate.total()
            ) as monitor,
        ):
            for result in self.lease.guard(results):
                if result.error is not None:
                    monitor.count(result, {}, self.estimate.total())
                    self._raise_if_permanent(result)
                    is_first = not failed
                    failed.add(result)
                    if result.fatal or failed.find_hopeless():
                        break
                    if is_first:  # the others may take hours
                        log(f"{self.label}: a split is left undone: {result.error}")
                    continue
                failed.note_success()
                counts = self.count(result)
                add_counts(totals, {"splits": 1, **counts})
                self.estimate.see(result.split, counts["rows"])
                progress.add(counts["rows"], counts["dead"], self.estimate.total())
                monitor.count(result, counts, self.estimate.total())
                if totals["splits"] < len(splits):
                    self.check(totals)
        if failed or totals["splits"] < len(splits):
            first = self.unfinished(totals["splits"], len(splits))
            reasons = failed.lines() or ["Ray gave no reason"]
            hopeless = failed.find_hopeless()
            last = [hopeless] if hopeless else []
            raise RunError("\n".join([f"{first}. What stopped them:", *reasons, *last]))
        return totals

    def _raise_if_permanent(self, result: SplitResult) -> None:
        """Raise if running again would not help."""
        if result.cause == "library":
            raise ConfigError(str(result.error))
        if result.cause == "model":
            raise explain_load_error(self.work.load.models, str(result.error))
        if result.cause == "row":
            raise RunError(
                f"{result.error}. Correct that row, or set output.on_error to dead_letter"
            )
