"""Stores that are away are asked again; what is wrong is said at once."""

from __future__ import annotations

import errno
import threading
import time
from types import SimpleNamespace

import pytest
from pipemill.actors.storage import backoff
from pipemill.actors.storage.backoff import is_of_store, is_transient, retry_with_backoff

from pipemill.errors import StoreError


@pytest.fixture
def waits(monkeypatch):
    """How long was waited, without waiting."""
    waited: list[float] = []
    sleep, own = time.sleep, threading.get_ident()

    def note(seconds: float) -> None:
        if threading.get_ident() == own:
            waited.append(seconds)
        else:  # a watchdog of an earlier test
            sleep(seconds)

    monkeypatch.setattr(backoff.time, "sleep", note)
    return waited


def failing(times: int, error: BaseException):
    """A call that raises so often, and then returns how often it was made."""
    calls = []

    def call() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return call


def test_a_store_that_comes_back_is_waited_for_longer_and_longer(waits):
    assert retry_with_backoff(failing(4, ConnectionResetError("gone")), "s3://b/a") == 5
    assert len(waits) == 4
    for waited, wanted in zip(waits, backoff.WAITS_S, strict=False):
        assert 0.8 * wanted <= waited <= 1.2 * wanted


def test_one_that_stays_away_is_named_with_its_last_words(waits, monkeypatch):
    # A client's own tries take time, too.
    clock = iter((100.0, 197.0))
    monkeypatch.setattr(backoff, "monotonic", lambda: next(clock))
    with pytest.raises(
        StoreError, match=r"s3://b/a can't be reached, tried 7 times over 97 s: OSError: .*told"
    ):
        retry_with_backoff(failing(99, OSError(errno.EIO, "told")), "s3://b/a")
    assert len(waits) == len(backoff.WAITS_S)


def test_what_is_wrong_is_said_at_once(waits):
    for error in (PermissionError("no"), FileNotFoundError("no"), ValueError("no")):
        with pytest.raises(type(error)):
            retry_with_backoff(failing(1, error), "s3://b/a")
    assert waits == []


def test_the_errors_of_clients_are_known():
    from botocore import exceptions as boto
    from s3fs.errors import translate_boto_error

    away = boto.EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    assert is_transient(away)
    assert is_transient(boto.ReadTimeoutError(endpoint_url="http://127.0.0.1:1"))
    assert not is_transient(boto.NoCredentialsError())
    for code, passing in {
        "InternalError": True,
        "ServiceUnavailable": True,
        "SlowDown": True,
        "503": True,
        "RequestTimeout": True,
        "AccessDenied": False,
        "SignatureDoesNotMatch": False,
        "NoSuchBucket": False,
        "InvalidBucketName": False,
    }.items():
        answer = {"Error": {"Code": code, "Message": "said the server"}}
        error = translate_boto_error(boto.ClientError(answer, "PutObject"))
        assert is_transient(error) is passing, code


@pytest.mark.parametrize(("code", "passing"), [(503, True), ("429", True), (404, False)])
def test_the_code_of_an_answer_is_read(code, passing):
    error = Exception(f"try again, {code}")
    error.code = code  # as gcsfs's HttpError
    assert is_transient(error) is passing


@pytest.mark.parametrize(("status", "passing"), [(500, True), (429, True), (404, False)])
def test_the_answer_of_the_hub_is_read(status, passing):
    from huggingface_hub.errors import HfHubHTTPError

    response = SimpleNamespace(status_code=status, headers={}, request=None)
    assert is_transient(HfHubHTTPError("told", response=response)) is passing


def test_a_hub_that_is_not_reached_may_be_later():
    from huggingface_hub import get_session

    with pytest.raises(Exception) as refused:
        get_session().get("http://127.0.0.1:1/api")
    assert is_transient(refused.value)


def test_what_a_store_refuses_is_not_the_files_fault():
    refused = OSError("Forbidden: https://storage.googleapis.com/b/o/part\nno access")  # gcsfs's
    for error in (PermissionError("no"), refused):
        assert is_of_store(error)
        assert not is_transient(error)
    assert not is_of_store(OSError("Couldn't deserialize thrift"))  # Arrow's
