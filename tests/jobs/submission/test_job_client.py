"""What is sent to a cluster: once, though answers get lost."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
import requests
from pipemill.jobs import submit
from pipemill.jobs.submission import job_client

import pipemill


class Silent:
    """A cluster that has the job, but whose first answers get lost."""

    def __init__(self, submitted):
        self.submitted = submitted

    def submit_job(self, **job):
        if not self.submitted:
            self.submitted.append(job)
            raise ConnectionError("hung up")
        raise RuntimeError("Job with submission_id mine already exists. Please use another")

    def get_job_info(self, name):
        raise ConnectionError("hung up")


def test_a_job_whose_answers_were_lost_is_there(monkeypatch):
    monkeypatch.setattr(job_client, "PAUSE_S", 0)
    client = Silent([])
    job_client.submit_once(client, "mine", entrypoint="true")
    assert len(client.submitted) == 1
    with pytest.raises(RuntimeError, match="already exists"):
        job_client.submit_once(client, "mine", entrypoint="true")  # of another submission


@pytest.mark.parametrize("retries", [0, 2])
def test_changed_files_are_computed_again_on_the_cluster(monkeypatch, retries):
    sent = []
    cluster = SimpleNamespace(get_address=lambda: "http://head:8265")
    monkeypatch.setattr(submit, "connect", lambda address: cluster)
    monkeypatch.setattr(submit, "submit_once", lambda client, name, **job: sent.append(job))
    job = {"task": "fill-mask", "model": "m", "input": "s3://b/in", "output": "s3://b/out"}
    more = {"address": "head", "retries": retries, "code": "cluster"}
    pipemill.submit(job, **more)
    pipemill.submit(job, **more, on_changed="reprocess")
    usual, again = (one["entrypoint"] for one in sent)
    assert again == usual.replace("/dev/stdin ", "/dev/stdin --on-changed reprocess ")
    assert again != usual
    with pytest.raises(pipemill.ConfigError, match="on_changed must be one of"):
        pipemill.submit(job, **more, on_changed="again")


def test_a_job_api_that_has_gone_is_told_by_the_system_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = r"^the job API at HERE does not answer \(\[Errno \d+\] Connection refused\)\. The job"
    with pytest.raises(pipemill.RunError, match=said), job_client.explain_silence("HERE"):
        requests.get(f"http://127.0.0.1:{port}/api/jobs/one", timeout=5)
