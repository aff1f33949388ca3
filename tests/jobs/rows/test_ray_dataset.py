"""A `ray.data.Dataset` is stored once, and read from the output afterwards."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pipemill


def read_table(output):
    return pipemill.read(str(output)).to_table()


def test_rows_are_stored_once_and_tensors_are_kept(ray_session, job):
    import ray.data

    def image(row):
        pixels = np.full((2, 3, 3), row["id"] % 200, np.uint8)
        return {"text": f"t {row['id']}", "n": row["id"], "image": pixels, "v": np.ones((2, 2))}

    dataset = ray.data.range(1500).map(image)
    settings = ["output.rows_per_part=500"]
    assert pipemill.run(**job(dataset, settings=settings)).rows == 1500
    again = pipemill.run(**job(ray.data.range(3), settings=settings))
    assert (again.rows, again.added["rows"]) == (1500, 0)
    assert again.notes == (
        "the rows are those that this output stored of a ray.data.Dataset before",
    )
    found = read_table(again.output)
    assert sorted(found["n"].to_pylist()) == list(range(1500))
    row = found.slice(700, 1).to_pylist()[0]
    assert row["text"] == f"t {row['n']}"
    pixels = np.asarray(Image.open(io.BytesIO(row["image"])))
    assert np.array_equal(pixels, np.full((2, 3, 3), row["n"] % 200))
    assert row["v"] == [[1, 1], [1, 1]]


def test_errors_are_those_of_the_users_code_and_types_are_named(ray_session, job):
    import ray.data

    def fails(row):
        raise ValueError("no such row")

    broken = ray.data.range(10).map(fails)
    with pytest.raises(pipemill.RunError, match="failed after 0 rows: ValueError: no such row. "):
        pipemill.run(**job(broken))
    odd = ray.data.from_items([{"text": "a", "odd": object()}])
    with pytest.raises(pipemill.ConfigError, match="column 'odd' of the ray.data.Dataset has the"):
        pipemill.run(**job(odd))
    empty = ray.data.from_items([{"text": "a"}]).filter(lambda row: False)
    assert pipemill.run(**job(empty, "empty")).rows == 0


def test_missing_texts_of_pandas_are_null(ray_session, job):
    import ray.data

    frame = pd.DataFrame({"n": range(4), "text": ["a", None, "c", None]})
    report = pipemill.run(**job(ray.data.from_pandas(frame).map(lambda row: row)))
    assert (report.done, report.dead) == (2, 2)
    assert report.dead_letters()["text"].to_pylist() == [None, None]


def test_a_block_may_lack_texts_and_pictures(ray_session, job):
    import ray.data

    frame = pd.DataFrame({"n": range(6), "text": ["a", None, "c", "d", None, None]})

    def load(row):
        return {**row, "image": None if row["n"] == 1 else np.full((2, 3, 3), 7, np.uint8)}

    report = pipemill.run(**job(ray.data.from_pandas([frame[:3], frame[3:4], frame[4:]]).map(load)))
    assert (report.done, report.dead) == (3, 3)
    for row in read_table(report.output).to_pylist():
        assert np.asarray(Image.open(io.BytesIO(row["image"]))).shape == (2, 3, 3)


_STORE = """
import logging, sys, time, ray, pipemill
from tests.jobs.rows.test_ray_dataset import slow_rows
from tests.support import light
from pipemill.jobs.rows import held_rows
light.install()
held_rows._SHARD_BYTES = 1
folder, address = sys.argv[1:]
ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
pipemill.run(
    task="lengths", model=folder + "/model", input=slow_rows(1), actors={"placement": "local"},
    output={"path": folder + "/out", "rows_per_part": 1000},
)
"""


def slow_rows(pause):
    import ray.data

    def make(batch):
        time.sleep(pause)
        return {"text": [f"t {n}" for n in batch["id"]], "n": batch["id"]}

    return ray.data.range(4000, override_num_blocks=8).map_batches(make, batch_size=None)


def test_killed_while_it_is_stored_every_row_is_there_once(ray_session, job, tmp_path):
    import ray

    again = job(slow_rows(0), settings=["output.rows_per_part=1000"])
    env = {**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)}
    command = [sys.executable, "-c", _STORE, str(tmp_path)]
    process = subprocess.Popen([*command, ray.get_runtime_context().gcs_address], env=env)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*/input/*/*/*.rows"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    report = pipemill.run(**again)
    assert (report.rows, report.added["rows"]) == (4000, 4000)
    assert sorted(read_table(tmp_path / "out")["n"].to_pylist()) == list(range(4000))
