"""A wrong storage option, and a store that does not answer, are one line."""

from __future__ import annotations

import pytest
from pipemill.actors.storage import backoff

import pipemill
from tests.support import light


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "x"}, " has 'endpoint', which s3:// does not know; did you mean 'endpoint_u"),
        ({"client_kwargs": {"nope": 1}}, r"\.client_kwargs has 'nope', which s3:// does not know"),
        ({"client_kwargs": 3}, r" \(client_kwargs\) has a value of a wrong type \(AttributeError"),
    ],
)
@pytest.mark.parametrize("place", ["input", "output", "model"])
def test_an_option_that_a_store_does_not_take(tmp_path, monkeypatch, place, options, said):
    light.install(monkeypatch)
    job = light.job(tmp_path, ["a"])
    job[place] = {"path": "s3://bucket/rows.parquet", "storage_options": options}
    with pytest.raises(pipemill.ConfigError, match=f"can't .*bucket.*storage_options{said}"):
        pipemill.run(job)


def test_missing_credentials_are_told_where_to_come_from(tmp_path, monkeypatch):
    light.install(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    job = {**light.job(tmp_path, ["a"]), "input": "s3://no-such-bucket/a.parquet"}
    with pytest.raises(pipemill.ConfigError, match="NoCredentialsError.*submit --env AWS_ACCESS"):
        pipemill.run(job)


def test_a_version_of_an_object_is_not_taken_for_the_newest(tmp_path, monkeypatch):
    light.install(monkeypatch)
    job = {**light.job(tmp_path, ["a"]), "input": "s3://bucket/a.parquet?versionId=1"}
    with pytest.raises(pipemill.ConfigError, match="a version of an object is not read"):
        pipemill.run(job)


@pytest.mark.parametrize("place", ["input", "output", "model"])
def test_a_bucket_that_can_not_be_is_one_line(tmp_path, monkeypatch, place):
    light.install(monkeypatch)
    job = {**light.job(tmp_path, ["a"]), place: "s3://My Bucket/rows.parquet"}
    with pytest.raises(pipemill.ConfigError, match='Invalid bucket name "My Bucket"') as told:
        pipemill.run(job)
    assert "\n" not in str(told.value)


def test_a_server_that_refuses_when_it_is_opened(tmp_path, monkeypatch):
    light.install(monkeypatch)
    monkeypatch.setattr(backoff, "WAITS_S", (0.05, 0.1))
    job = {**light.job(tmp_path, ["a"]), "input": "ftp://127.0.0.1:1/a.parquet"}
    with pytest.raises(pipemill.RunError, match=r"can't be reached, tried .*ConnectionRefused"):
        pipemill.run(job)
