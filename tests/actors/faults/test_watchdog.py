"""What hangs is told from what is slow."""

from __future__ import annotations

import threading
import time

import pytest
from pipemill.actors.faults import process_end, watchdog
from pipemill.actors.faults.watchdog import mark_progress, watch_stage
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask


@pytest.fixture
def ended(monkeypatch):
    """Limits of half a second; and what would have ended this process."""
    reasons: list[str] = []
    monkeypatch.setattr(watchdog, "LEAST_S", 0.5)
    monkeypatch.setattr(watchdog, "FIRST_S", 0.5)
    monkeypatch.setattr(watchdog, "_watching", None)  # the one there is sleeps for seconds
    monkeypatch.setattr(watchdog, "end_this_process", lambda reason, _: reasons.append(reason))
    watchdog._paces.clear()
    return reasons


def test_slow_work_that_makes_progress_goes_on_and_a_hang_is_reported_once(ended, capfd):
    with watch_stage("forward"):
        for _ in range(12):
            time.sleep(0.15)
            mark_progress()
    assert ended == []
    with watch_stage("regroup"):
        time.sleep(1.2)
    (reason,) = ended
    assert reason.startswith("no progress in 1 s of regroup; it is at test_slow_work")
    said = capfd.readouterr().err
    assert "Current thread" in said, "the stacks of all threads"
    assert "; the run waits for it" in said, "the user's own process goes on"


def test_a_call_that_waits_for_another_thread_is_not_it(ended):
    """Each thread has its stage: one that goes on does not hide one that hangs."""

    def work():
        with watch_stage("expand"):
            for _ in range(10):
                time.sleep(0.1)
                mark_progress()

    thread = threading.Thread(target=work)
    thread.start()
    with watch_stage("forward"):
        time.sleep(0.9)
    thread.join()
    assert [reason.partition(";")[0][-10:] for reason in ended] == ["of forward"]


def test_the_limit_follows_the_longest_step(monkeypatch):
    pace = watchdog._Pace()
    assert pace.limit_s() == watchdog.FIRST_S == 900
    pace.steps, pace.longest_s = 8, 0.02
    assert pace.limit_s() == watchdog.LEAST_S == 300
    pace.longest_s = 60
    assert pace.limit_s() == 30 * 60


def test_each_token_that_is_generated_is_progress(models):
    load = LoadTask(
        task="text-generation",
        model=Model(path=models["text-generation"]),
        columns=(("text", "text"),),
        parameters='{"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": false}',
    )
    import pyarrow as pa
    from pipemill.actors.batch import Batch

    stages = load()
    watchdog._paces.clear()
    batch = stages.process(Batch(pa.table({"text": ["one text"]})))
    assert not batch.failures
    assert watchdog._paces["forward"].steps > 20
    assert not process_end.is_replaceable()
