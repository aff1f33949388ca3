"""While a run goes on, its driver says how far it is: at Ray's endpoint, too."""

from __future__ import annotations

from types import SimpleNamespace

from pipemill.actors.split_result import SplitResult
from pipemill.actors.storage.store import Store
from pipemill.jobs.monitoring.run_log import read_log
from pipemill.jobs.monitoring.run_monitor import RunMonitor
from pipemill.jobs.output.lease import Lease

from tests.support import splits
from tests.support.ray_endpoint import wait_for_series


def test_splits_and_the_time_left_stay_at_the_endpoint(tmp_path, ray_session):
    store, one = Store(str(tmp_path)), splits.split_of("in.jsonl")
    work = SimpleNamespace(
        sink=SimpleNamespace(name="monitored"),
        load=SimpleNamespace(task="ner"),
        placement="fused",
    )
    result = SplitResult(split=one, rows=10, dead=1, reasons={"read: A": 1})
    with Lease(store) as lease:
        lease.acquire()
        before = {"rows": 5, "dead": 2}
        with RunMonitor(work, lease, before, splits=7, total=70) as monitor:
            for _ in range(2):
                monitor.count(result, {"rows": 10, "dead": 1}, 70)
            monitor.count(SplitResult(split=one, error="no"), {}, 70)
            found = wait_for_series(
                lambda series: series.total("ray_pipemill_eta_seconds", job="monitored") is not None
            )
    states = {
        state: found.total("ray_pipemill_splits", job="monitored", state=state)
        for state in ("done", "left", "failed")
    }
    assert states == {"done": 2, "left": 4, "failed": 1}
    last = read_log(store, lease.number)[-1]
    assert (last.event, last.rows, last.dead, last.rows_before) == ("end", 20, 2, 5)
    assert (last.rows_total, last.reasons) == (75, {"read: A": 2})
    assert last.eta_seconds == round(50 / last.rows_per_second, 1)
