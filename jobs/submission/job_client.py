"""Talk to the job API of a cluster, and say in one line why that does not work."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipemill.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# pyproject.toml requires this one.
_OLDEST_RAY = (2, 60)
_PORT = 8265
# How long the job API may be silent: a tunnel that is made again, a head that is busy.
SILENCE_S = 60.0
PAUSE_S = 1.0
_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# Which Ray takes instead of the address that it is given.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def connect(address: str) -> JobSubmissionClient:
    """Connect to the job API at an address such as http://HEAD:8265.

    Raises:
        ConfigError: Nothing answers there, or something else; the token is refused; the cluster's
            Ray is too old; or this machine lacks Ray's client.
    """
    address = _complete(address)
    _check_port(address)
    with _explain(address), _hide_overrides():
        try:
            from ray.job_submission import JobSubmissionClient

            # After the import, which sets the levels. They report each upload.
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            client = JobSubmissionClient(address)
        except ImportError as error:
            raise ConfigError(
                f"Ray's job client can't be imported ({error}): pip install 'pipemill[cluster]'"
            ) from None
    _check_version(address, getattr(client, "_server_ray_version", None))
    return client


def submit_once(client: JobSubmissionClient, submission_id: str, **job: Any) -> None:
    """Submit a job; if the connection is lost, submit it again unless the cluster has it.

    Args:
        client: Of the cluster's job API.
        submission_id: A name that no other job has.
        job: The other arguments of Ray's `submit_job`.

    Raises:
        OSError: The job API has been silent for a minute.
        RuntimeError, ValueError: Ray does not accept the job.
    """
    until, asked = time.monotonic() + SILENCE_S, 0
    while True:
        try:
            client.submit_job(submission_id=submission_id, **job)
            return
        except OSError:
            if time.monotonic() > until:
                raise
        except RuntimeError as error:
            if asked and "already exists" in str(error):  # of which no answer came before
                return
            raise
        asked += 1
        time.sleep(PAUSE_S)
        try:
            client.get_job_info(submission_id)
            return
        except (OSError, RuntimeError):  # still silent, or the job is not known
            continue


@contextmanager
def explain_silence(address: str) -> Iterator[None]:
    """Raise RunError in one line if the job API stops answering in the block."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"the job API at {address} does not answer ({cut_first_line(_find_cause(error))}). The "
            "job may go on; submitted again, it resumes"
        ) from None


@contextmanager
def explain_submission(address: str) -> Iterator[None]:
    """Raise ConfigError in one line if Ray does not accept the job in the block."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the cluster at {address} does not accept the job ({cut_first_line(error)})"
        ) from None


def _complete(address: str) -> str:
    """Return an address with its scheme and port."""
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f"address {address!r} must be that of Ray's dashboard, such as http://HEAD:{_PORT}"
        )
    if port is None and parts.scheme == "http" and not parts.path:
        url = f"{url}:{_PORT}"
    return url.rstrip("/")


def _check_port(address: str) -> None:
    """Raise ConfigError if nothing listens there: Ray would wait for minutes."""
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"nothing answers at {address} ({error}): give the address of Ray's dashboard. It "
            "runs on the head (port 8265) if ray[default] is installed there; `ray dashboard "
            "cluster.yaml` makes it reachable from here"
        ) from None


@contextmanager
def _hide_overrides() -> Iterator[None]:
    saved = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


@contextmanager
def _explain(address: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if type(error).__name__ == "AuthenticationError":
            raise ConfigError(
                f"the cluster at {address} refuses the token ({cut_first_line(error)}): set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) as on its head"
            ) from None
        raise ConfigError(
            f"what answers at {address} is not Ray's job API ({cut_first_line(error)}): give the "
            "address of Ray's dashboard, whose port is 8265 unless the cluster says otherwise"
        ) from None


def _check_version(address: str, version: str | None) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version or "")[:2])
    if numbers and numbers < _OLDEST_RAY:
        raise ConfigError(
            f"the cluster at {address} runs Ray {version}, and pipemill needs "
            f"{'.'.join(map(str, _OLDEST_RAY))} or newer: update Ray there"
        )


def _find_cause(error: BaseException) -> BaseException:
    """Return the error of the system that caused this one, which libraries tell at length."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def cut_first_line(error: BaseException) -> str:
    """Return the first line of an error, for a message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")[:200]
