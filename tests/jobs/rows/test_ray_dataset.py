"""A `ray.data.Dataset` is stored once, and read from the output afterwards."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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


_STORE = """
import logging, sys, time, ray, ray.data, pipemill
from tests.support import light
from pipemill.jobs.rows import held_rows
light.install()
held_rows._SHARD_BYTES = 1
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         logging_level=logging.ERROR)
pause = float(sys.argv[2])
def slow(batch):
    time.sleep(pause)
    return {"text": [f"t {n}" for n in batch["id"]], "n": batch["id"]}
rows = ray.data.range(4000, override_num_blocks=8).map_batches(slow, batch_size=None)
report = pipemill.run(
    task="lengths", model=sys.argv[1] + "/model", input=rows, actors={"placement": "local"},
    output={"path": sys.argv[1] + "/out", "rows_per_part": 1000},
)
print(report.rows, report.added["rows"])
"""


def test_killed_while_it_is_stored_every_row_is_there_once(job, tmp_path):
    job([])
    env = {**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)}
    command = [sys.executable, "-c", _STORE, str(tmp_path)]
    process = subprocess.Popen([*command, "1"], env=env)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*/input/*/*/*.rows"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = subprocess.run([*command, "0"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4000", "4000"]
    assert sorted(read_table(tmp_path / "out")["n"].to_pylist()) == list(range(4000))
