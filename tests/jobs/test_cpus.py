"""No job hangs for want of CPUs: with any number of actors it runs, or says what to change."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import tiny

PATIENCE_S = 180  # far more than it takes; a hang is what must not be


@pytest.mark.parametrize(
    ("cpus", "cases"),
    [
        (
            1,
            [
                ({"min": 4, "max": 4}, "rows"),
                ({"placement": "staged", "max": 4}, "actors.num_cpus to 0.5 or less"),
                ({"placement": "staged", "max": 4, "num_cpus": 0.5}, "rows"),
                ({"num_cpus": 2}, "set actors.num_cpus to 1 or less"),
                ({"num_gpus": 1}, "set actors.num_gpus to 0"),
            ],
        ),
        (2, [({"placement": "staged", "min": 2, "max": 2}, "rows")]),
        (3, [({"placement": "staged", "min": 3, "max": 8}, "rows")]),
    ],
)
def test_runs_or_says_what_to_change(models, tmp_path, cpus, cases):
    pq.write_table(pa.table({"text": tiny.texts(40, longest=10)}), tmp_path / "in.parquet")
    wanted = {
        "task": "text-classification",
        "model": models["text-classification"],
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 10},
    }
    command = [sys.executable, "-m", "tests.jobs.run_on_cpus", str(cpus), json.dumps(wanted)]
    done = subprocess.run(
        [*command, json.dumps([actors for actors, _ in cases])],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(said) == len(cases), done.stderr
    for (_, expected), got in zip(cases, said, strict=True):
        if expected == "rows":
            assert got == {"rows": 40}
        else:
            assert expected in got["error"]
