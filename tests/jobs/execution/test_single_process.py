"""Small inputs are done by one process, without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.split import Split
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution import single_process
from pipemill.jobs.execution.single_process import is_small, work_without_ray
from pipemill.jobs.execution.split_work import SplitWork
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

import pipemill
from tests.support import light, light_over_ray, own_pipelines, tiny
from tests.support.listening import GRPC, listen
from tests.support.processes import kill_marked, marked, marked_environment
from tests.support.run_on_raylets import LoadSlow
from tests.support.tables import same_rows


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No Ray that could be joined."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    monkeypatch.setattr("pipemill.jobs.execution.ray_address.find_connected_ray", lambda: None)


def split(rows: int | None, size: int = 1000) -> Split:
    return Split(0, "in.jsonl", size, "v", 0, size if rows is None else rows, rows)


@pytest.mark.parametrize(
    ("splits", "actors", "small"),
    [
        ([split(40)], {}, True),
        ([split(None)], {}, True),
        ([split(40)], {"max": 4, "num_cpus": 2}, True),
        ([split(40)], {"placement": "fused"}, False),
        ([split(40)], {"num_gpus": 0.5}, False),
        ([split(40)], {"min": 2}, False),
        ([split(600)] * 2, {}, False),
        ([split(40, 2**30)], {}, False),
        ([split(None, 2**22)], {}, False),
    ],
)
def test_what_is_small(alone, splits, actors, small):
    assert is_small(ActorsSection(**{"num_gpus": 0, **actors}), splits) == small


def test_a_ray_that_runs_is_used_unless_the_job_wants_its_own(alone, monkeypatch, tmp_path):
    (tmp_path / "ray/ray").mkdir(parents=True)
    with listen(GRPC) as address:
        (tmp_path / "ray/ray/ray_current_cluster").write_text(address)
        assert not is_small(ActorsSection(num_gpus=0), [split(40)])
        assert is_small(ActorsSection(num_gpus=0, cluster="local"), [split(40)])
    assert is_small(ActorsSection(num_gpus=0), [split(40)])
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert not is_small(ActorsSection(num_gpus=0), [split(40)])
    assert is_small(ActorsSection(num_gpus=0, cluster="local"), [split(40)])
    monkeypatch.setattr("pipemill.jobs.execution.ray_address.find_connected_ray", object)
    assert not is_small(ActorsSection(num_gpus=0, cluster="local"), [split(40)])


@pytest.mark.parametrize(
    ("remaining", "load_s", "splits", "actors", "ray"),
    [
        (10, 2, 9, {}, False),
        (20, 2, 9, {}, True),  # 8 + 2 + 20 / 4 s with Ray
        (20, 9, 9, {}, False),
        (1000, 2, 1, {}, False),
        (1000, 2, 9, {"max": 1}, False),
        (1000, 2, 9, {"num_cpus": 4}, False),
        (1000, 2, 9, {"num_cpus": 2}, True),
    ],
)
def test_when_ray_is_sooner(monkeypatch, remaining, load_s, splits, actors, ray):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert single_process.ray_is_sooner(remaining, load_s, splits, ActorsSection(**actors)) == ray


def test_what_takes_longer_is_left_to_ray(monkeypatch, tmp_path):
    """Every split takes 0.4 s, and Ray costs nothing here."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(single_process, "WATCHED_S", 1.0)
    monkeypatch.setattr(single_process, "RAY_S", -10.0)
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    rows = pa.table({"n": range(100), "text": [f"row {n}" for n in range(100)]}, schema)
    pq.write_table(rows, tmp_path / "in.parquet")
    file = list_files(str(tmp_path / "in.parquet"), "auto", {}, "/nowhere")[0][0]
    plan = Plan("parquet", schema)
    plan.add(SplitRange(file, i, i + 5, 5) for i in range(0, 100, 5))
    sink = PartSink(Store(str(tmp_path / "out")), ["n", "text"], "dead_letter")
    work = SplitWork(
        placement="single",
        load=LoadSlow(),
        source=open_source("parquet", {}, schema),
        sink=sink,
        actors=ActorsSection(),
    )
    results = work_without_ray(work, plan.splits)
    lines = []
    try:
        while True:
            lines.append(next(results))
    except StopIteration as end:
        left = end.value
    assert 1 <= len(lines) < 10  # for a second, or more where the machine is busy
    assert [line.split.number for line in lines] == list(range(len(lines)))
    assert left == plan.splits[len(lines) :]
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["n"].to_pylist() == list(range(5 * len(lines)))


def start(folder, *words: str, **environment: str):
    """A command, without a Ray that could be joined."""
    mark, inherited = marked_environment()
    inherited.pop("RAY_ADDRESS", None)
    (folder / "ray").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**inherited, "RAY_TMPDIR": str(folder / "ray"), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return mark, process


def test_forty_rows_need_no_ray_and_get_the_same_answers(models, tmp_path):
    texts = [*tiny.texts(39, seed=3, longest=30), None]
    pq.write_table(pa.table({"n": range(40), "text": texts}), tmp_path / "in.parquet")
    model = models["text-classification"]
    _, process = start(
        tmp_path, "pipemill.jobs.run", "--task", "text-classification", "--model", model,
        "--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out"),
        "--set", "output.rows_per_part=10",
    )  # fmt: skip
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    report = json.loads(stdout.splitlines()[-1])
    assert (report["done"], report["dead"], report["splits"]) == (39, 1, 4)
    assert "loading the model" in stderr
    assert "starting Ray" not in stderr
    assert os.listdir(tmp_path / "ray") == []
    assert os.listdir(tmp_path / "out/_pipemill/attempts") == []
    pipemill.run(
        task="text-classification",
        model=model,
        input=str(tmp_path / "in.parquet"),
        output={"path": str(tmp_path / "again"), "rows_per_part": 10},
        actors={"placement": "local"},
    )
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["n"].to_pylist() == list(range(39))
    assert same_rows(ds.dataset(tmp_path / "again").to_table(), table)


def test_the_columns_of_a_users_class_need_no_ray(alone, models, tmp_path, capfd):
    model, texts = models["text-classification"], tiny.texts(9, seed=4, longest=20)
    report = pipemill.run(
        task="mine",
        model=model,
        pipeline_class=own_pipelines.Words,
        input=[{"text": text} for text in texts],
        output=str(tmp_path / "out"),
    )
    assert "computing a sample for the result columns" in capfd.readouterr().err
    assert not (tmp_path / "ray").exists()
    truth = own_pipelines.Words(**load_parts(model))
    answers = report.to_arrow()["result"].to_pylist()
    assert [one["words"] for one in answers] == [text.split() for text in texts]
    assert [one["best"] for one in answers] == pytest.approx(
        [truth(text)["best"] for text in texts], abs=1e-5
    )


def load_parts(folder):
    return {
        "model": transformers.AutoModelForSequenceClassification.from_pretrained(folder),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
    }


def test_it_is_interrupted_like_any_run_and_goes_on(tmp_path):
    job = light.job(tmp_path, [f"text {n}" for n in range(400)], actors={})
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    words = (light_over_ray.__name__, "run", str(tmp_path / "job.yaml"))
    mark, process = start(tmp_path, *words, LIGHT_SLOW="0.01")
    try:
        until = time.monotonic() + 120
        while len(list((tmp_path / "out").glob("part-*"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "{" not in stdout
        assert stderr.strip().splitlines()[-1] == "pipemill: interrupted; run again to resume"
        assert "Traceback" not in stderr
        assert marked(mark) == []
    finally:
        kill_marked(mark)
    # A file that the worker was writing when it was ended begins with a dot.
    left = os.listdir(tmp_path / "out/_pipemill/attempts")
    assert [name for name in left if not name.startswith(".")] == []
    done = len(list((tmp_path / "out").glob("part-*")))
    assert done < 40
    _, process = start(tmp_path, *words)
    stdout, stderr = process.communicate(timeout=120)
    report = json.loads(stdout.splitlines()[-1])
    assert (report["rows"], report["added"]["splits"]) == (400, 40 - done)
    assert f"{10 * done}/400" in stderr or "400/400" in stderr
    assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == list(range(400))
