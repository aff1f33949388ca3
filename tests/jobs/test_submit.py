"""`pipemill submit` and `pipemill.submit`, to a head with a token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from tests.support import tiny
from tests.support.failing_proxy import LOST, Proxy
from tests.support.processes import MARK, marked_environment

ROWS, ROWS_PER_PART = 48, 6
# Slow enough to be killed in the middle. It is in no installed package, and says where it runs.
MODULE = """
import os, time
import pipemill
from transformers import TextClassificationPipeline

class Slow(TextClassificationPipeline):
    def postprocess(self, *arguments, **keywords):
        time.sleep(0.1)
        answer = super().postprocess(*arguments, **keywords)
        return {**answer, "label": f"{os.environ['GREETING']} from {pipemill.__file__}"}
"""


def environment(head) -> dict[str, str]:
    _, inherited = marked_environment()
    inherited.pop("RAY_ADDRESS", None)
    return {**inherited, **head.environment}


def start(head, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipemill", "submit", *arguments, "--address", head.api]
    return subprocess.Popen(
        command, cwd=folder, env=environment(head), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def write_job(folder: Path, models) -> None:
    (folder / "code").mkdir()
    (folder / "code/slow.py").write_text(MODULE)
    (folder / "model").symlink_to(models["text-classification"])
    texts = tiny.texts(ROWS, longest=10)
    pq.write_table(pa.table({"n": range(ROWS), "text": texts}), folder / "in.parquet")
    job = {
        "task": "text-classification",
        "pipeline_class": "slow:Slow",
        "model": "model",
        "input": "in.parquet",
        "output": {"path": "out", "rows_per_part": ROWS_PER_PART},
        "actors": {"max": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def wait_for_parts(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    until = time.monotonic() + 180
    while len(list(folder.glob("out/part-*"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)


def find_drivers(head) -> list[psutil.Process]:
    """The shell of a job's command, and then its processes."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) != head.environment[MARK]:
                continue
            if "pipemill run /dev/stdin" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=psutil.Process.create_time)  # numbers begin again after the last


def rows(folder: Path) -> pa.Table:
    return ds.dataset(folder / "out").to_table()


def test_it_takes_code_along_and_resumes_after_each_kill(ray_head, models, tmp_path):
    write_job(tmp_path, models)
    process = start(
        ray_head, tmp_path, "job.yaml", "--wait", "--retries", "1", "--working-dir", "code",
        "--env", "GREETING=hello",
    )  # fmt: skip
    wait_for_parts(tmp_path, process, 1)
    # Not the shell, which starts another.
    drivers = [one for one in find_drivers(ray_head) if one.name().startswith("python")]
    for one in drivers:
        one.kill()
    wait_for_parts(tmp_path, process, len(list(tmp_path.glob("out/part-*"))) + 1)
    for one in find_drivers(ray_head):  # the shell, too: who waits submits the job again
        one.kill()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["done"], result["rows"]) == (ROWS, ROWS)
    assert 0 < result["added"]["rows"] <= ROWS - 2 * ROWS_PER_PART, "it did not resume"
    assert len(drivers) == 2
    assert "\npipemill: exit status 137; starting again in 5 s\n" in err
    assert err.count("\nRunning entrypoint for job ") == 2
    assert f"these paths where they are here: {tmp_path / 'model'}, " in err
    table = rows(tmp_path)
    assert table["n"].to_pylist() == list(range(ROWS))
    (label,) = set(table["label"].to_pylist())
    assert label.startswith("hello from ")
    assert "/py_modules_files/" in label, "it is not this pipemill that ran"


FOLLOW = """
import sys, pipemill
from pipemill.jobs.submission import follow_log
from ray.job_submission import JobSubmissionClient

follow_log._LONG = 200  # what comes behind that is streamed
job = pipemill.Submission(sys.argv[1], sys.argv[2])
print(job.status())
print(job.stop(), job.status(), job.stop(), job.wait())
assert "loading the model" in job.logs()
again = pipemill.submit(
    "job.yaml", address=sys.argv[2], working_dir="code", env={"GREETING": "hi"}, code="cluster",
    settings=["actors.placement=local"],
)
seen = []
print(again.wait(seen.append))
assert '{"rows": 48, "done": 48' in "\\n".join(seen)
assert "\\n".join(seen) == again.logs().removesuffix("\\n")
assert str(again) == again.id and again.output in again._repr_html_()
client = JobSubmissionClient(again.address)
assert client.get_job_info(again).submission_id == again.id  # Ray's own takes it for the id
"""


def test_who_stops_waiting_finds_the_job_again(ray_head, models, tmp_path):
    write_job(tmp_path, models)
    # In the driver: an actor would import torch beside it, and the test above has some.
    process = start(
        ray_head, tmp_path, "job.yaml", "--wait", "--working-dir", "code", "--env",
        "GREETING=hello", "--set", "actors.placement=local",
    )  # fmt: skip
    wait_for_parts(tmp_path, process, 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    name = next(line.split()[1] for line in err.splitlines() if line.startswith("job "))
    assert last == (
        f"pipemill: no longer waiting; the job goes on. Follow it: ray job logs --follow {name} "
        f"--address {ray_head.api}. Stop it: ray job stop {name} --address {ray_head.api}"
    )
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, name, ray_head.api],
        cwd=tmp_path, env=environment(ray_head), capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["RUNNING", "True STOPPED False 130", "0"]
    table = rows(tmp_path)
    assert table["n"].to_pylist() == list(range(ROWS))
    assert {label.partition(" ")[0] for label in table["label"].to_pylist()} == {"hello", "hi"}
    assert "/py_modules_files/" not in table["label"][ROWS - 1].as_py()


def test_a_job_that_is_wrong_there_ends_with_2(ray_head, models, tmp_path):
    write_job(tmp_path, models)
    process = start(
        ray_head, tmp_path, "job.yaml", "--wait", "--retries", "3", "--set", "input=${NOWHERE}"
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    assert "The cluster must set what the config names, or env must send it: NOWHERE" in err
    assert "environment variable is not set" in err
    assert "exit status 2; starting again" not in err


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    """A server that says it is an old Ray below /old, and nothing of the kind elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            old = self.path.startswith("/old/")
            self.send_response(200 if old else 404)
            self.end_headers()
            self.wfile.write(b'{"version": "4", "ray_version": "2.40.0"}' if old else b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def refuse(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Submit a job that must be refused, and return the one line that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "pipemill", "submit", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("pipemill: ")


def test_a_cluster_that_does_not_take_the_job_is_one_line(ray_head, other_server, models, tmp_path):
    write_job(tmp_path, models)
    without = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    with_token = environment(ray_head)
    wrong = {**without, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
    closed = "http://127.0.0.1:1"
    for variables, address, message in [
        (without, ray_head.api, f"at {ray_head.api} refuses the token (Authentication required"),
        (wrong, ray_head.api, f"at {ray_head.api} refuses the token (Authentication failed"),
        (without, closed, f"nothing answers at {closed} ("),
        # Ray's own address is not that of its dashboard.
        (with_token, ray_head.address, f"what answers at http://{ray_head.address} is not Ray's"),
        (with_token, f"ray://{ray_head.address}", "must be that of Ray's dashboard, such as http"),
        (without, other_server, f"what answers at {other_server} is not Ray's job API"),
        (without, f"{other_server}/old", "runs Ray 2.40.0, and pipemill needs 2.60 or newer"),
    ]:
        assert message in refuse(tmp_path, variables, "job.yaml", "--address", address)


SUBMIT = """
import sys
from pipemill.jobs.submission.job_client import connect, submit_once

client = connect(sys.argv[1])
submit_once(client, "mine", entrypoint="true")
print([job.submission_id for job in client.list_jobs()].count("mine"))
"""


def test_a_lost_connection_loses_no_job_and_doubles_none(ray_head, tmp_path):
    answers = [0, LOST]  # the request is lost, then the answer to the next one

    def rule(method, path, count):
        submits = (method, path) == ("POST", "/api/jobs/")
        return answers[count] if submits and count < len(answers) else None

    with Proxy(ray_head.api, rule) as proxy:
        done = subprocess.run(
            [sys.executable, "-c", SUBMIT, proxy.endpoint],
            cwd=tmp_path, env=environment(ray_head), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert proxy.failed == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--env", "NOT_SET_HERE"], "--env 'NOT_SET_HERE' is not of the form NAME=VALUE, and no"),
        (["--working-dir", "nowhere"], "working_dir nowhere is not a folder"),
        (["--set", "outputs=o"], "unknown key 'outputs' in job.yaml; did you mean 'output'?"),
    ],
)
def test_a_mistake_is_one_line_before_the_cluster_is_asked(models, tmp_path, more, message):
    write_job(tmp_path, models)
    line = refuse(tmp_path, dict(os.environ), "job.yaml", "--address", "127.0.0.1:1", *more)
    assert line.startswith(message)
