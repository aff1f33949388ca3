"""job.json as older and newer versions wrote it."""

from __future__ import annotations

import json

import pytest
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output.job_record import JobRecord

OLD = {"job": {"task": "t", "output": {"on_error": "null"}}, "decides": {"model": "m"}}


def test_what_older_outputs_lack_has_a_default():
    record = JobRecord.from_json(json.dumps({**OLD, "retries": None}).encode())
    assert (record.task, record.input_path, record.retries) == ("t", None, {})
    assert record.keeps_dead_rows
    assert json.loads(record.to_json()).items() >= OLD.items()
    assert "retries" not in json.loads(record.to_json())


def test_what_newer_outputs_have_stays():
    newer = {**OLD, "fingerprint": "f", "retries": {"g": {"parameters": {}}}, "owner": "me"}
    record = JobRecord.from_json(json.dumps(newer).encode()).with_retry("h", {"parameters": {}})
    written = json.loads(record.to_json())
    assert (written["owner"], list(written["retries"])) == ("me", ["g", "h"])


@pytest.mark.parametrize("damaged", [b"", b"[]", b'"x"', b"{}", b'{"job": {}}'])
def test_what_is_damaged_raises(damaged):
    with pytest.raises((ValueError, TypeError, LookupError)):
        JobRecord.from_json(damaged)


def test_a_name_on_the_hub_needs_no_current_folder(tmp_path, monkeypatch):
    """The folder that a shell is in may be removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    sections = {"task": "t", "model": "org/m", "input": "/i.csv", "output": "/o"}
    job = build_job(sections, [], {}, {})
    gone.rmdir()
    assert JobRecord.of(job, {}, "f").job["model"]["path"] == "org/m"


def test_a_stored_job_of_several_tasks_is_a_job(tmp_path, monkeypatch):
    """Also if the path of the first model was relative."""
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    tasks = [{"task": "t", "model": "model", "name": "a"}, {"task": "t", "model": "m", "name": "b"}]
    job = build_job({"tasks": tasks, "input": "/i.csv", "output": "/o"}, [], {}, {})
    stored = build_job(dict(JobRecord.of(job, {}, "f").job), [], {}, {})
    assert [entry.model.path for entry in stored.tasks] == [str(tmp_path / "model"), "m"]


def test_a_budget_is_kept_for_the_device_that_measured_it():
    sections = {"task": "t", "model": "m", "input": "i.csv", "output": "o"}
    job = build_job({**sections, "actors": {"num_gpus": 0}}, [], {}, {})
    on_gpu = build_job({**sections, "actors": {"num_gpus": 1}}, [], {}, {})
    fixed = build_job({**sections, "batching": {"max_tokens": 7}}, [], {}, {})
    record = JobRecord(**OLD).with_token_budget(job, 2048).with_token_budget(job, None)
    assert (record.token_budget(job), record.token_budget(on_gpu)) == (2048, None)
    assert record.token_budget(fixed) is None
    assert record.with_token_budget(fixed, 7) == record
