"""Which variables of the driver's environment workers take over."""

import os
import pickle

import pytest
from pipemill.actors.credentials import Credentials, WithCredentials, find_missing_credentials

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"}


@pytest.mark.parametrize(
    ("given", "there", "taken"),
    [
        (KEYS, {}, KEYS),
        ({**KEYS, "AWS_REGION": "eu"}, {"AWS_REGION": "us"}, KEYS),
        # An identity is whole: the other's secret does not fit this one's key.
        (KEYS, {"AWS_ACCESS_KEY_ID": "other"}, {}),
        (KEYS, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"}, {}),
        ({**KEYS, "AWS_ENDPOINT_URL": "http://s3"}, {"AWS_ROLE_ARN": "arn"},
         {"AWS_ENDPOINT_URL": "http://s3"}),
        ({"HF_TOKEN": "hf"}, KEYS, {"HF_TOKEN": "hf"}),
        ({"HF_TOKEN": "hf"}, {"HUGGING_FACE_HUB_TOKEN": "own"}, {}),
        ({"AZURE_STORAGE_ACCOUNT_KEY": "k"}, {"AZURE_STORAGE_CONNECTION_STRING": "c"}, {}),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/not/here.json"}, {}, {}),
        ({"GOOGLE_APPLICATION_CREDENTIALS": __file__}, {},
         {"GOOGLE_APPLICATION_CREDENTIALS": __file__}),
        ({"AWS_CA_BUNDLE": "/not/here.pem"}, {}, {}),
    ],
)  # fmt: skip
def test_a_worker_takes_what_it_lacks(given, there, taken):
    assert find_missing_credentials(given, there) == taken


def test_they_are_those_of_stores_and_of_the_hub(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("AWS_", "HF_", "AZURE_", "GOOGLE_", "HUGGING", "FSSPEC_")):
            monkeypatch.delenv(name)
    for name in (*KEYS, "AWS_PROFILE", "HF_HOME", "HF_TOKEN", "HOME", "FSSPEC_S3_KEY"):
        monkeypatch.setenv(name, "hush")
    names = [name for name, _ in Credentials.of_environment().variables]
    assert names == [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FSSPEC_S3_KEY", "HF_TOKEN",
    ]  # fmt: skip


def test_a_process_has_them_with_what_it_loads_and_shows_none(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    load = WithCredentials(dict, Credentials.of_environment())
    sent = pickle.dumps(load)
    assert "hush" not in repr(load)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    received = pickle.loads(sent)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert received == load
    assert received() == {}
