"""`ray job submit --working-dir . -- python -m pipemill.jobs.run …`, to a head with a token."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support import tiny
from tests.support.processes import kill_marked, marked_environment

ROOT = Path(__file__).parent.parent.parent.parent
RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def head(tmp_path):
    """The address of a head node's job API, and the environment that holds its token."""
    # Not Ray's usual folder, where the next `ray.init` would look for this head. Short: it holds
    # sockets, whose paths may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    (tmp_path / "token").write_text(secrets.token_hex(32))
    mark, environment = marked_environment()
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    environment["RAY_TMPDIR"] = folder
    gcs, api, agent = free_ports(3)
    start = [RAY, "start", "--head", "--num-cpus=2", f"--port={gcs}", f"--dashboard-port={api}"]
    try:
        subprocess.run(
            [*start, f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"],
            env=environment, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        yield f"http://127.0.0.1:{api}", environment
    finally:
        kill_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_job_submit_starts_the_same_job(head, models, tmp_path):
    address, environment = head
    pq.write_table(pa.table({"text": tiny.texts(60, longest=10)}), tmp_path / "in.parquet")
    job = [
        "--task", "text-classification", "--model", models["text-classification"],
        "--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out"),
        "--set", "actors.max=1",
    ]  # fmt: skip
    submit = [RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    command = [*submit, "python", "-m", "pipemill.jobs.run", *job]
    environment.pop("RAY_ADDRESS", None)
    with pytest.raises(urllib.error.HTTPError, match="401"):  # without the token
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=30)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('{"rows"')]
    assert json.loads(line)["done"] == 60
    assert ds.dataset(tmp_path / "out").to_table().num_rows == 60
    # There the job's folder is a copy, which Ray deletes.
    relative = ["out" if word == str(tmp_path / "out") else word for word in command]
    done = subprocess.run(relative, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "pipemill: output.path out is " in done.stdout + done.stderr
    assert "deletes after it: name an absolute path, or a URL" in done.stdout + done.stderr
