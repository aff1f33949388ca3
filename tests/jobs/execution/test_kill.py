"""kill -9 of an actor and of the driver, SIGTERM; then the same command: every row once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import pipemill
from tests.support import light, light_over_ray, tiny
from tests.support.processes import kill_marked, marked, marked_environment
from tests.support.tables import same_rows

ROWS = 1500
PATIENCE_S = 240


class Job:
    """A run of the command line in a process of its own, and all processes that descend from it."""

    def __init__(self, words: list[str], module: str = "pipemill.jobs.run") -> None:
        self.mark, environment = marked_environment()
        self.driver = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env=environment,
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

    def finish(self) -> dict:
        out, _ = self.driver.communicate(timeout=PATIENCE_S)
        assert self.driver.returncode == 0
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def wanted(models, tmp_path):
    texts: list[str | None] = list(tiny.texts(ROWS, seed=2, longest=40))
    texts[1234] = None
    table = pa.table({"n": range(ROWS), "text": pa.array(texts)})
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(table.slice(i * 500, 500), tmp_path / f"in/{i}.parquet")
    # Micro-batches of almost nothing: slow enough to be killed in the middle.
    return {
        "task": "text-classification",
        "model": models["text-classification"],
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "parameters": {"truncation": True, "max_length": 120},
        "batching": {"max_tokens": 1},
    }


def flags(wanted: dict) -> list[str]:
    words = [w for key in ("task", "model", "input", "output") for w in (f"--{key}", wanted[key])]
    params = [w for k, v in wanted["parameters"].items() for w in ("--param", f"{k}={v}")]
    more = ["batching.max_tokens=1", "output.rows_per_part=25", "actors.placement=fused"]
    return [*words, *params, *(word for setting in more for word in ("--set", setting))]


def test_every_row_once_however_often_it_is_killed(wanted, tmp_path):
    out = tmp_path / "out"
    job = Job(flags(wanted))
    try:
        # An actor dies: Ray starts another, which does its splits again.
        job.wait_for_parts(out, 3)
        job.actors()[0].kill()
        job.wait_for_parts(out, 12)
        # The driver alone dies: its workers may go on a little while the next run begins.
        job.driver.send_signal(signal.SIGKILL)
        job.driver.wait()
        second = Job([*flags(wanted), "--set", "actors.max=1"])
        second.wait_for_parts(out, len(list(out.glob("part-*"))) + 8)
        check_interrupted(second)
        job.kill_everything()
        left = ROWS // 25 - len(list(out.glob("part-*")))
        assert left > 10, "nothing left to do for the last run: kill earlier"
        last = Job([*flags(wanted), "--set", "actors.max=1"])
        report = last.finish()
    finally:
        job.kill_everything()
    assert (report["rows"], report["done"], report["dead"]) == (ROWS, ROWS - 1, 1)
    assert report["added"]["splits"] <= left
    table = ds.dataset(out).to_table()
    assert table["n"].to_pylist() == [i for i in range(ROWS) if i != 1234]
    letters = ds.dataset(out / "_pipemill/dead-letter").to_table().to_pylist()
    assert [letter["n"] for letter in letters] == [1234]
    untouched = pipemill.run(
        {
            **wanted,
            "output": {"path": str(tmp_path / "again"), "rows_per_part": 25},
            "actors": {"placement": "local"},
        }
    )
    assert untouched.rows == ROWS
    assert same_rows(ds.dataset(tmp_path / "again").to_table(), table)


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
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    job = Job(["run", str(tmp_path / "job.yaml")], light_over_ray.__name__)
    _, said = job.driver.communicate(timeout=PATIENCE_S)
    assert job.driver.returncode == 1
    assert "rows failed, more than output.max_errors (5) allows" in said
    assert said.strip().splitlines()[-1].startswith("Correct the cause")
    assert "Traceback" not in said
    assert "local Ray" not in said
