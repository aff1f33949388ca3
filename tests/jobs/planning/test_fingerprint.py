"""Which changes make a job another one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pipemill.jobs.config.job import Job
from pipemill.jobs.output.job_record import JobRecord
from pipemill.jobs.planning import fingerprint
from pipemill.jobs.planning.fingerprint import (
    _list_fields,
    decide_results,
    find_changed_fields,
    hash_fields,
    hash_retry,
)


def test_keyword_arguments_have_no_order_and_options_have_one():
    keywords, options = {"do_sample": False, "top_k": 3}, {"yes": "a", "no": "b"}
    old = {"parameters": {"generate_kwargs": keywords, "questions": options}}

    def turned(name):
        given = old["parameters"]
        return {"parameters": {**given, name: dict(reversed(given[name].items()))}}

    assert find_changed_fields(old, {"parameters": dict(reversed(old["parameters"].items()))}) == []
    assert find_changed_fields(old, turned("generate_kwargs")) == []
    assert find_changed_fields(old, turned("questions")) == ["parameters"]


def test_a_retry_with_options_in_another_order_has_a_fingerprint_of_its_own():
    def asking(**questions):
        return {"parameters": {"generate_kwargs": {"a": 1, "b": 2}, "questions": questions}}

    first, changed = asking(yes="a", no="b"), asking(yes="c", no="d")
    record = JobRecord(job={}, decides=first, fingerprint=hash_fields(first))
    swapped = {"parameters": {**first["parameters"], "generate_kwargs": {"b": 2, "a": 1}}}
    assert hash_retry(first, record) == hash_retry(swapped, record) == record.fingerprint
    assert hash_retry(changed, record) == hash_fields(changed)
    for fields in (changed, asking(no="d", yes="c"), asking(no="b", yes="a")):
        assert hash_retry(fields, record) not in {record.fingerprint, *record.retries}
        record = record.with_retry(hash_retry(fields, record), fields)
        assert hash_retry(fields, record) in record.retries, "a second retry is the same"


@pytest.mark.parametrize("task", ["feature-extraction", "image-feature-extraction"])
def test_scaled_vectors_of_tokens_do_not_join_older_ones_that_were_not_scaled(task):
    def decide(**parameters):
        job = Job(task=task, model="m", input="i", output="o", parameters=parameters)
        return _list_fields(job, task, "float32", "digest", {}).keys()

    assert decide(pooling="none", normalize=True) - decide() == {"normalize of each vector"}
    assert decide(pooling="none") == decide(pooling="mean", normalize=True) == decide()


def test_an_engine_that_is_not_installed_here_is_another_one(monkeypatch):
    """An output is asked for its job before it is known whether anything is left to compute."""
    graph = SimpleNamespace(modules=("a-package-that-is-nowhere",))
    monkeypatch.setattr(fingerprint, "find_engine", lambda name: SimpleNamespace(graph=graph))
    job = Job(task="ner", model={"path": "m", "engine": "nowhere"}, input="i", output="o")
    fields = _list_fields(job, "token-classification", "float32", "digest", {})
    assert fields["a-package-that-is-nowhere"] == "not installed here"


@pytest.mark.parametrize(
    ("then", "now", "kept"),
    [
        ("2.13.0+cpu", "2.13.0", "2.13.0+cpu"),
        ("2.13.0", "2.13.0+cu130", "2.13.0"),
        ("2.13.0+cpu", "2.13.1+cpu", "2.13.1+cpu"),
        ("2.9.0a0+145a3a7", "2.9.0a0+50eac81", "2.9.0a0+50eac81"),  # of other sources
        (None, "2.13.0+cpu", "2.13.0+cpu"),
    ],
)
def test_another_build_of_the_same_torch_is_the_same_job(monkeypatch, then, now, kept):
    monkeypatch.setattr(fingerprint, "version", lambda package: now)
    job = Job(task="text-classification", model="m", input="i", output="o")
    followed = SimpleNamespace(decides={})
    task = SimpleNamespace(
        steps=(), spec=SimpleNamespace(name=job.task), is_user=False, followed=followed
    )
    monkeypatch.setattr(fingerprint, "choose_dtype", lambda *given: "float32")
    fields = decide_results(job, task, "digest", {"torch": then} if then else {})
    assert fields["torch"] == kept
