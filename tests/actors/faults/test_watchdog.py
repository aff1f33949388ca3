"""What hangs is told from what is slow."""

from __future__ import annotations

import faulthandler
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pipemill.actors.batch import Batch
from pipemill.actors.faults import process_end, watchdog
from pipemill.actors.faults.watchdog import hold, mark_progress, share_stage, watch_stage
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import tiny_audio


@pytest.fixture
def ended(monkeypatch):
    """Limits of half a second; and what would have ended this process."""
    reasons: list[str] = []
    monkeypatch.setattr(watchdog, "LEAST_S", 0.5)
    monkeypatch.setattr(watchdog, "FIRST_S", 0.5)
    monkeypatch.setattr(watchdog, "FACTOR", 1)
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


@pytest.mark.parametrize("steps", [10, 2])
def test_to_wait_for_a_lock_is_a_hang_only_if_its_holder_hangs(ended, steps):
    lock, held = threading.Lock(), threading.Event()

    def work():
        with watch_stage("forward"), hold(lock):
            held.set()
            for _ in range(steps):
                time.sleep(0.15)
                mark_progress()
            time.sleep(1.5 - steps * 0.15)

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    with watch_stage("forward"), hold(lock):
        pass
    thread.join()
    assert bool(ended) == (steps < 10)


def test_a_thread_that_helps_a_stage_makes_its_steps(ended):
    def work():
        for _ in range(8):
            time.sleep(0.15)
            mark_progress()

    with watch_stage("forward"), ThreadPoolExecutor(1, initializer=share_stage()) as threads:
        threads.submit(work).result()
    assert ended == []


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
    stages = load()
    watchdog._paces.clear()
    batch = stages.process(Batch(pa.table({"text": ["one text"]})))
    assert not batch.failures
    assert watchdog._paces["forward"].steps > 20
    assert not process_end.is_replaceable()


def test_each_token_that_is_heard_is_progress(models):
    load = LoadTask(
        task="automatic-speech-recognition",
        model=Model(path=models["whisper"]),
        columns=(("audio", "audio"),),
    )
    stages = load()
    assert stages.task.schedules
    watchdog._paces.clear()
    batch = stages.process(Batch(pa.table({"audio": [tiny_audio.wav(1.5, 1)]})))
    assert not batch.failures
    assert watchdog._paces["forward"].steps > 20


def test_texts_that_wait_for_others_that_run_alone_do_not_hang(models, ended):
    load = LoadTask(
        task="text-generation",
        model=Model(path=models["text-generation"]),
        columns=(("text", "text"),),
        parameters='{"max_new_tokens": 2, "do_sample": false}',
    )
    stages = load()
    rows = Batch(pa.table({"text": ["one text", "and two"]}))
    stages.process(rows)
    thread = threading.Thread(target=stages.process, args=[rows])
    with watch_stage("forward"), stages.task.forwards.scheduled._alone:
        thread.start()
        for _ in range(8):
            time.sleep(0.15)
            mark_progress()
    thread.join()
    assert ended == []


def test_a_process_that_must_not_end_any_more_is_not_ended_later(monkeypatch):
    cancelled = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)
    monkeypatch.setattr(
        faulthandler, "cancel_dump_traceback_later", lambda: cancelled.append("cancelled")
    )
    monkeypatch.setattr(watchdog, "is_replaceable", lambda: True)
    with watchdog.watch_stage("forward"):
        pass
    monkeypatch.setattr(watchdog, "is_replaceable", lambda: False)
    for _ in range(2):
        watchdog._look(0)
    assert cancelled == ["cancelled"]
