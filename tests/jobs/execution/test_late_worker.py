"""A worker that outlives its driver, and writes when another run has long done its split."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pyarrow.dataset as ds
import pytest
from pipemill.actors.workers.fused import FusedWorker
from pipemill.jobs.config.load import build_job
from pipemill.jobs.prepare import prepare

import pipemill
from tests.support import light

TEXTS = [f"text {n}" if n != 3 else "bad1" for n in range(30)]
PATIENCE_S = 60


def test_what_it_writes_late_is_what_was_there(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, TEXTS)
    (tmp_path / "late.json").write_text(json.dumps(wanted))
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.jobs.execution.test_late_worker",
            str(tmp_path / "late.json"),
        ],
        env={**os.environ, "LIGHT_SLOW": "0.2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        part = tmp_path / "out" / worker.stdout.readline().strip()
        time.sleep(0.5)  # of the two seconds that its split takes
        worker.send_signal(signal.SIGSTOP)
        until = time.monotonic() + PATIENCE_S
        while psutil.Process(worker.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not part.exists()
        assert pipemill.run(wanted).rows == len(TEXTS)
        before, written = ds.dataset(tmp_path / "out").to_table(), part.stat().st_mtime_ns
        worker.send_signal(signal.SIGCONT)
        assert worker.wait(PATIENCE_S) == 0
    finally:
        worker.kill()
        worker.communicate()
    assert part.stat().st_mtime_ns > written, "it wrote its part once more"
    assert ds.dataset(tmp_path / "out").to_table().equals(before)
    assert before["n"].to_pylist() == [n for n in range(len(TEXTS)) if n != 3]
    assert pipemill.verify(str(tmp_path / "out")).ok
    assert pipemill.run(wanted).added["splits"] == 0


def test_what_it_writes_late_for_a_job_that_was_changed_is_no_answer(tmp_path, monkeypatch):
    light.install(monkeypatch)
    before = prepare(build_job(light.job(tmp_path, TEXTS), [], {}, {}))
    worker = FusedWorker(before.load, before.source, before.sink)
    changed = light.job(tmp_path, TEXTS, parameters={"healed": 1})
    prepare(build_job(changed, [], {}, {}))
    split = before.plan.splits[0]
    assert worker.process(split).error is None
    with pytest.raises(pipemill.ConfigError, match=f"{split.part} was written by another job"):
        pipemill.run(changed)
    (tmp_path / "out" / split.part).unlink()
    assert pipemill.run(changed).dead == 0
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_what_it_would_write_late_for_a_file_that_changed_is_not_written(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, TEXTS)
    assert pipemill.run(wanted).rows == len(TEXTS)
    before = prepare(build_job(wanted, [], {}, {}))
    worker = FusedWorker(before.load, before.source, replace(before.sink, lease=1))
    split, expand = before.plan.splits[0], light.Light.expand
    (tmp_path / "out" / split.part).unlink()

    def take_a_while(task, rows):
        monkeypatch.setattr(light.Light, "expand", expand)
        (tmp_path / "in.parquet").unlink()
        changed = light.job(tmp_path, [f"{text} again" for text in TEXTS])
        assert pipemill.run(changed, on_changed="reprocess").rows == len(TEXTS)
        return expand(task, rows)

    monkeypatch.setattr(light.Light, "expand", take_a_while)
    assert "another run has taken over" in worker.process(split).error
    assert not (tmp_path / "out" / split.part).exists()
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_a_run_that_another_one_took_over_writes_no_part(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted, expand = light.job(tmp_path, TEXTS), light.Light.expand
    leases = tmp_path / "out/_pipemill/lease"

    def take_over(task, rows):
        (leases / "00000001.json").rename(leases / "00000002.json")
        monkeypatch.setattr(light.Light, "expand", expand)
        return expand(task, rows)

    monkeypatch.setattr(light.Light, "expand", take_over)
    with pytest.raises(pipemill.RunError, match="another run has taken over"):
        pipemill.run(wanted)
    assert not list((tmp_path / "out").glob("part-*"))
    assert pipemill.run(wanted).rows == len(TEXTS)


def main(config: str) -> None:
    """The worker: the first split of a job, as an actor would do it, with no driver over it."""
    light.install()
    with open(config) as file:
        prepared = prepare(build_job(json.load(file), [], {}, {}))
    split = prepared.plan.splits[0]
    worker = FusedWorker(prepared.load, prepared.source, prepared.sink)
    print(split.part, flush=True)
    result = worker.process(split)
    assert result.error is None, result


if __name__ == "__main__":
    main(sys.argv[1])
