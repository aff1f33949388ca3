"""kill -9 of an actor and of the driver, SIGTERM; then the same command: every row once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import pipemill
from tests.support import light, light_over_ray
from tests.support.processes import kill_marked, marked, marked_environment
from tests.support.tables import same_rows

ROWS, PER_PART, DEAD = 1200, 16, 1034
PATIENCE_S = 240


class Job:
    """A run of the command line in a separate process, and all processes that descend from it."""

    def __init__(self, wanted: dict, folder: Path, slow: float = 0.0) -> None:
        """slow: seconds that a row takes."""
        (folder / "job.yaml").write_text(json.dumps(wanted))
        self.mark, environment = marked_environment()
        self.driver = subprocess.Popen(
            [sys.executable, "-m", light_over_ray.__name__, "run", str(folder / "job.yaml")],
            env={**environment, "LIGHT_SLOW": str(slow)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def actors(self) -> list[psutil.Process]:
        return [p for p in marked(self.mark) if "MapWorker" in " ".join(p.cmdline())]

    def wait_for_parts(self, out, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(list(out.glob("part-*"))) < count:
            assert self.driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < until, "no parts came"
            time.sleep(0.02)

    def kill_everything(self) -> None:
        kill_marked(self.mark)
        self.driver.wait()


@pytest.fixture
def wanted(tmp_path):
    texts: list[str | None] = [f"text {n}" for n in range(ROWS)]
    texts[DEAD] = None
    wanted = light.job(tmp_path, texts, PER_PART, actors={"placement": "fused"})
    table = pq.read_table(tmp_path / "in.parquet")
    (tmp_path / "in").mkdir()
    for i, first in enumerate(range(0, ROWS, ROWS // 3)):
        pq.write_table(table.slice(first, ROWS // 3), tmp_path / f"in/{i}.parquet")
    return {**wanted, "input": str(tmp_path / "in")}


def test_every_row_once_however_often_it_is_killed(wanted, tmp_path, monkeypatch):
    out = tmp_path / "out"
    job = Job(wanted, tmp_path, slow=0.02)
    try:
        # An actor dies: Ray starts another, which does its splits again.
        job.wait_for_parts(out, 3)
        job.actors()[0].kill()
        job.wait_for_parts(out, 12)
        # The driver alone dies: its workers may go on a little while the next run begins.
        job.driver.send_signal(signal.SIGKILL)
        job.driver.wait()
        second = Job(wanted, tmp_path, slow=0.02)
        second.wait_for_parts(out, len(list(out.glob("part-*"))) + 8)
        check_interrupted(second)
        job.kill_everything()
        left = ROWS // PER_PART - len(list(out.glob("part-*")))
        assert left > 10, "nothing left to do for the last run: kill earlier"
    finally:
        job.kill_everything()
    light.install(monkeypatch)
    here = {**wanted, "actors": {"placement": "local"}}
    report = pipemill.run(here)
    assert (report.rows, report.done, report.dead) == (ROWS, ROWS - 1, 1)
    assert report.added["splits"] <= left
    table = ds.dataset(out).to_table()
    assert table["n"].to_pylist() == [i for i in range(ROWS) if i != DEAD]
    letters = ds.dataset(out / "_pipemill/dead-letter").to_table().to_pylist()
    assert [letter["n"] for letter in letters] == [DEAD]
    again = str(tmp_path / "again")
    untouched = pipemill.run({**here, "output": {**wanted["output"], "path": again}})
    assert untouched.rows == ROWS
    assert same_rows(ds.dataset(again).to_table(), table)


def check_interrupted(job: Job) -> None:
    """SIGTERM: it stops within seconds, and says how to go on."""
    job.driver.send_signal(signal.SIGTERM)
    stdout, stderr = job.driver.communicate(timeout=60)
    assert job.driver.returncode == 130
    assert "{" not in stdout, "no report of a run that was not finished"
    assert "run again to resume" in stderr
    assert "Traceback" not in stderr


def test_a_run_that_stops_early_says_why_and_no_more(tmp_path):
    """What it has open is closed while Ray is there: closed later, it starts another Ray."""
    texts = [None if n % 3 else f"text {n}" for n in range(400)]
    actors = {"placement": "fused", "max": 1}
    wanted = light.job(tmp_path, texts, 4, output={"max_errors": 5}, actors=actors)
    job = Job(wanted, tmp_path)
    _, said = job.driver.communicate(timeout=PATIENCE_S)
    assert job.driver.returncode == 1
    assert "rows failed, more than output.max_errors (5) allows" in said
    assert said.strip().splitlines()[-1].startswith("Correct the cause")
    assert "Traceback" not in said
    assert "local Ray" not in said
