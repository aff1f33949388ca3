"""`ray job submit --working-dir . -- python -m pipemill.jobs.run …`, to a head with a token."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support import tiny
from tests.support.processes import marked_environment

ROOT = Path(__file__).parent.parent.parent.parent
RAY = str(Path(sys.executable).parent / "ray")


def test_ray_job_submit_starts_the_same_job(ray_head, models, tmp_path):
    _, environment = marked_environment()
    environment.pop("RAY_ADDRESS", None)
    pq.write_table(pa.table({"text": tiny.texts(60, longest=10)}), tmp_path / "in.parquet")
    job = [
        "--task", "text-classification", "--model", models["text-classification"],
        "--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out"),
        "--set", "actors.max=1",
    ]  # fmt: skip
    run = ["python", "-m", "pipemill.jobs.run", *job]
    # There the job's folder is a copy, which Ray deletes.
    relative = ["out" if word == str(tmp_path / "out") else word for word in run]
    lines = [f"{shlex.join(command)}\necho status $?\n" for command in (run, relative)]
    (tmp_path / "both.sh").write_text("".join(lines))
    with pytest.raises(urllib.error.HTTPError, match="401"):  # without the token
        urllib.request.urlopen(f"{ray_head.api}/api/jobs/", timeout=30)
    done = subprocess.run(
        [
            RAY, "job", "submit", "--address", ray_head.api, "--working-dir", str(ROOT), "--",
            "sh", str(tmp_path / "both.sh"),
        ],
        env={**environment, **ray_head.environment},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, status, second = re.split(r"^status (\d+)$", done.stdout, maxsplit=1, flags=re.M)
    assert status == "0", first
    (line,) = [line for line in first.splitlines() if line.startswith('{"rows"')]
    assert json.loads(line)["done"] == 60
    assert ds.dataset(tmp_path / "out").to_table().num_rows == 60
    assert "status 2" in second
    assert "pipemill: output.path out is " in second
    assert "deletes after it: name an absolute path, or a URL" in second
