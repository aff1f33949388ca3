"""Placements, faults and resuming on a GPU, through Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipemill import plan
from tests.support import tiny

ROWS = 2000
CONFIG = Path(__file__).parent.parent.parent / "configs/text-classification.yaml"


@pytest.fixture
def rows(tmp_path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for shard in range(4):
        texts = tiny.texts(ROWS // 4, seed=shard)
        ids = range(shard * ROWS // 4, (shard + 1) * ROWS // 4)
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / f"{shard}.parquet")
    return folder


def start(model: str, rows: Path, out: Path, **settings: object) -> subprocess.Popen:
    settings = {
        "model.path": model,
        "model.dtype": "float32",
        "input.path": rows,
        "input.columns.text": "text",
        "parameters.top_k": 1,
        "output.path": out,
        "output.rows_per_part": 50,
        **settings,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pipemill.jobs.run", str(CONFIG), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def answers(out: Path) -> pa.Table:
    table = ds.dataset(out, exclude_invalid_files=True).to_table(columns=["id", "label", "score"])
    return table.sort_by("id")


@pytest.fixture
def expected(models, rows, tmp_path) -> pa.Table:
    settings = {"actors.num_gpus": 0, "actors.placement": "local"}
    finish(start(models["text-classification"], rows, tmp_path / "cpu", **settings))
    return answers(tmp_path / "cpu")


def check(out: Path, expected: pa.Table) -> None:
    found = answers(out)
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["label"] == expected["label"]
    for one, other in zip(found["score"].to_pylist(), expected["score"].to_pylist(), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize(
    "actors",
    [
        {"placement": "fused", "num_gpus": 1},
        {"placement": "staged", "num_gpus": 1},
        {"placement": "fused", "num_gpus": 0.25, "max": 4, "min": 4},
    ],
    ids=["fused", "staged", "replicas"],
)
def test_placements_give_the_answers_of_the_cpu(models, rows, tmp_path, expected, actors):
    settings = {f"actors.{key}": value for key, value in actors.items()}
    report = finish(start(models["text-classification"], rows, tmp_path / "out", **settings))
    assert report["done"] == ROWS
    check(tmp_path / "out", expected)


def test_killed_actors_and_a_killed_driver_lose_no_row(models, rows, tmp_path, expected):
    out, model = tmp_path / "out", models["text-classification"]
    settings = {"actors.placement": "fused", "actors.num_gpus": 0.5, "actors.min": 2}
    process = start(model, rows, out, **settings)
    _wait_for_parts(process, out, 2)
    for actor in _children(process, "ray::MapWorker"):
        actor.kill()
    _wait_for_parts(process, out, 8)
    for child in _children(process, "python"):
        child.kill()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert finish(start(model, rows, out, **settings))["done"] == ROWS
    check(out, expected)


def _children(process: subprocess.Popen, name: str) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if child.name().startswith(name)]


def _wait_for_parts(process: subprocess.Popen, out: Path, count: int) -> None:
    until = time.monotonic() + 120
    while len(list(out.glob("part-*"))) < count and process.poll() is None:
        assert time.monotonic() < until, "no parts came"
        time.sleep(0.02)


def test_plan_recommends_how_many_actors_share_the_gpu(models, rows):
    settings = {"task": "text-classification", "model": models["text-classification"]}
    found = plan({**settings, "input": {"path": str(rows), "columns": {"text": "text"}}}, seconds=1)
    assert found.per_gpu >= 1
    assert (found.pod.gpus, found.pod.actors) == (1, found.per_gpu)
