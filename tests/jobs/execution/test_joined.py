"""Runs on a Ray that somebody else has started, whose workers know no credentials."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.jobs.execution.ray_cluster import ray_session
from pipemill.jobs.submission.working_copy import check_input_stays, check_output_lasts

from pipemill.errors import ConfigError
from tests.support import light, s3_server

ROWS = 60


def start(wanted: dict, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    (folder / "job.yaml").write_text(json.dumps(wanted))
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.light_over_ray", "run", str(folder / "job.yaml")],
        env={**inherited, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def on_files(tmp_path, **actors) -> dict:
    texts = [f"text {n}" for n in range(ROWS)]
    return light.job(tmp_path, texts, actors={"placement": "auto", "max": 1, **actors})


@pytest.fixture(scope="module")
def bucket(object_store):
    """A bucket with the input, and the environment that opens it."""
    options = {
        "key": s3_server.KEY, "secret": s3_server.SECRET, "endpoint_url": object_store.endpoint,
    }  # fmt: skip
    filesystem, _ = open_filesystem("s3://", options)
    filesystem.mkdir("joined")
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(ROWS), "text": [f"row {n}" for n in range(ROWS)]}), sink)
    filesystem.pipe_file("joined/in.parquet", sink.getvalue())
    return filesystem, object_store.environment()


@pytest.mark.parametrize("passed", [True, False])
def test_workers_get_credentials_unless_told_otherwise(ray_head, bucket, tmp_path, passed):
    address, folder, environment = ray_head.address, ray_head.folder, ray_head.environment
    filesystem, keys = bucket
    out = f"joined/out-{passed}"
    wanted = on_files(tmp_path, pass_credentials=passed)
    wanted["input"], wanted["output"]["path"] = "s3://joined/in.parquet", f"s3://{out}"
    driver = start(wanted, tmp_path, {**environment, **keys, "AWS_MAX_ATTEMPTS": "1"})
    stdout, stderr = driver.communicate(timeout=240)
    assert stderr.startswith(f"joining Ray\nRay: joined {address}, 2 CPUs\n")
    if passed:
        assert driver.returncode == 0, stderr
        assert json.loads(stdout.splitlines()[-1])["done"] == ROWS
        assert len([name for name in filesystem.ls(out) if "/part-" in str(name)]) == ROWS // 10
    else:
        assert driver.returncode == 1
        assert "redentials" in stderr
    # Ray's logs and all else that it keeps.
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    written += [filesystem.cat_file(path) for path in filesystem.find(out)]
    told = (stdout + stderr).encode()
    assert len(written) > 20
    assert not any(s3_server.SECRET.encode() in data for data in [*written, told])
    assert "Traceback" not in stderr


def test_a_run_that_waits_for_cpus_says_so(ray_head, tmp_path):
    address, environment = ray_head.address, ray_head.environment
    hold = (
        "import sys, time, ray\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "held = ray.remote(num_cpus=2)(lambda: print('held') or time.sleep(600)).remote()\n"
        "while ray.available_resources().get('CPU'): time.sleep(0.1)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, address],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        driver = start(on_files(tmp_path), tmp_path, {**environment, "RAY_ADDRESS": address})
        said = []
        while not said or "waits" not in said[-1]:
            said.append(driver.stderr.readline())
            assert said[-1], said
        assert said[-1] == "lengths: waits for CPUs (2 of 2 in use)\n"
    finally:
        holder.kill()
        holder.communicate()
    stdout, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["done"] == ROWS


def test_python_joins_a_ray_once_for_a_run(ray_head, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(on_files(tmp_path)))
    code = (
        "import json, sys, pipemill\n"
        "from tests.support.light_over_ray import install\n"
        "install()\n"
        "print(pipemill.run(json.load(open(sys.argv[1]))).done)\n"
        "print(sys.modules['ray'].is_initialized())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "job.json")],
        env={**os.environ, **ray_head.environment},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.split() == [str(ROWS), "False"], done.stderr
    assert done.stderr.count("Ray: joined") == 1


def test_a_run_ends_when_it_is_done(ray_head, tmp_path):
    """Ray Data's own statistics, which only a cluster has on, run in a thread that never ends."""
    environment = ray_head.environment
    driver = start(on_files(tmp_path), tmp_path, {**environment, "RAY_USAGE_STATS_ENABLED": "1"})
    for line in driver.stderr:
        if line.startswith("output "):  # the last that is said before Ray shuts down
            break
    told = time.monotonic()
    stdout, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["done"] == ROWS
    assert time.monotonic() - told < 15


def test_a_job_may_want_a_ray_of_this_machine(ray_head, tmp_path):
    address, environment = ray_head.address, ray_head.environment
    wanted = on_files(tmp_path, cluster="local", placement="fused")
    driver = start(wanted, tmp_path, {**environment, "RAY_ADDRESS": address})
    _, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stderr
    assert "starting Ray\n" in stderr
    assert "logging.cc" not in stderr
    assert "joined" not in stderr
    assert ds.dataset(tmp_path / "out").to_table().num_rows == ROWS


def test_a_python_that_has_a_ray_can_start_no_other(monkeypatch):
    monkeypatch.setattr("pipemill.jobs.execution.ray_cluster.find_connected_ray", object)
    refused = pytest.raises(ConfigError, match=r"actors.cluster is local, but .*ray.shutdown\(\)")
    with refused, ray_session("local"):
        pass
    with ray_session("auto"):
        pass


COPY = "ray/session_1/runtime_resources/working_dir_files/_ray_pkg_5f3c"


def test_an_output_in_a_copy_that_ray_deletes_is_refused(monkeypatch, tmp_path):
    (tmp_path / COPY / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / COPY / "data")
    for path in ("out", "./out/", "../out", str(tmp_path / COPY / "out")):
        with pytest.raises(ConfigError, match="deletes after it: name an absolute path, or a URL"):
            check_output_lasts(path)
    for path in (str(tmp_path / "out"), "s3://bucket/out", "memory://out"):
        check_output_lasts(path)
    monkeypatch.chdir(tmp_path)
    check_output_lasts("out")


def test_an_input_in_a_copy_whose_place_changes_is_refused(monkeypatch, tmp_path):
    (tmp_path / COPY / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / COPY)
    for given in ("data", "./data/*.parquet", ["/data/a.parquet", "in.csv"]):
        with pytest.raises(ConfigError, match="input.path .*: name an absolute path, or a URL"):
            check_input_stays(given)
    for given in ("/data/in", ["s3://bucket/in", "/data"], "hf://datasets/a/b", object()):
        check_input_stays(given)
    monkeypatch.chdir(tmp_path)
    check_input_stays("data")
