"""While a run goes on, its driver says how far it is: at Ray's endpoint, too."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from pipemill.actors.split_result import SplitResult
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.monitoring import run_monitor
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
        actors=ActorsSection(),
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
            monitor.count(result, {"rows": 10, "dead": 1}, 70)  # after the last beat, perhaps
        ended = wait_for_series(
            lambda series: series.total("ray_pipemill_splits", job="monitored", state="done") == 3
        )
    assert ended.total("ray_pipemill_splits", job="monitored", state="left") == 3
    states = {
        state: found.total("ray_pipemill_splits", job="monitored", state=state)
        for state in ("done", "left", "failed")
    }
    assert states == {"done": 2, "left": 4, "failed": 1}
    last = read_log(store, lease.number)[-1]
    assert (last.event, last.rows, last.dead, last.rows_before) == ("end", 30, 3, 5)
    assert (last.rows_total, last.reasons) == (75, {"read: A": 3})
    assert last.eta_seconds == round(40 / last.rows_per_second, 1)


@pytest.mark.parametrize("cpus", [1, 1000])
def test_a_cluster_without_a_node_for_actors_is_said(
    cpus, tmp_path, ray_session, monkeypatch, capsys
):
    monkeypatch.setattr(run_monitor, "_SILENCE_S", 0.2)
    monkeypatch.setattr(run_monitor, "_BEAT_S", 0.1)
    work = SimpleNamespace(
        sink=SimpleNamespace(name="silent"),
        load=SimpleNamespace(task="ner"),
        placement="fused",
        actors=ActorsSection(num_cpus=cpus, num_gpus=0),
    )
    with Lease(Store(str(tmp_path))) as lease:
        lease.acquire()
        with RunMonitor(work, lease, {}, splits=7, total=70):
            time.sleep(1)
    told = "none of the 1 nodes of the Ray cluster can hold an actor now: the run waits"
    assert (told in capsys.readouterr().err) == (cpus == 1000)
