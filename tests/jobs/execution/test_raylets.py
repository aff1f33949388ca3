"""A cluster of several nodes: one is lost and another joins."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.dataset as ds

from tests.support.run_on_raylets import PER_SPLIT, ROWS


def test_every_row_once_when_a_node_is_lost_and_another_joins(tmp_path):
    command = [sys.executable, "-m", "tests.support.run_on_raylets", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (told,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told == {"errors": [], "nodes": 4, "parts": ROWS // PER_SPLIT}
    dead = list(range(7, ROWS, 60))
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["n"].to_pylist() == [n for n in range(ROWS) if n not in dead]
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table()
    assert letters["n"].to_pylist() == dead
