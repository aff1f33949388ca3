"""Submitting a job once, though answers get lost."""

from __future__ import annotations

import pytest
from pipemill.jobs.submission import job_client


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
