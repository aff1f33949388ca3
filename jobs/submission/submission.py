"""A job on a cluster: follow it, wait for it, stop it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipemill.errors import ConfigError, RunError, RunInterrupted

from ..execution.supervisor import check_interrupts
from ..output.text_table import Block, Shown, make_fact_table
from .follow_log import LogFollower
from .job_client import PAUSE_S, SILENCE_S, connect, cut_first_line, explain_silence, submit_once

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

# Of a job's record in Ray: the id of its first attempt, and how often it may be submitted again.
FIRST, RETRIES = "pipemill_submission", "pipemill_retries"
_STOP_S = 60.0
_MESSAGE = 600  # characters of a message of Ray, which may be pages
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Submission(Shown):
    """A job on a cluster. `Submission(id, address)` is one that was submitted earlier.

    As text it is its id: Ray's own client and commands take it.

    Attributes:
        id: Ray's name of it.
        address: Of the cluster's job API.
        output: Where the job writes, as far as known.
    """

    id: str
    address: str
    output: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.id

    def status(self) -> str:
        """Return Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        with explain_silence(self.address):
            return str(self._list_attempts(connect(self.address))[-1].status.value)

    def logs(self) -> str:
        """Return what the job has printed so far."""
        with explain_silence(self.address):
            client = connect(self.address)
            return _read_logs(client, self._list_attempts(client))

    def stop(self) -> bool:
        """Stop the job and wait until it has ended. Submit it again to resume.

        Returns:
            Whether it was running.
        """
        with explain_silence(self.address):
            client = connect(self.address)
            last = self._list_attempts(client)[-1]
            if last.status in _ENDED:
                return False
            client.stop_job(str(last.submission_id))
            until = time.monotonic() + _STOP_S
            while time.monotonic() < until and self._list_attempts(client)[-1].status not in _ENDED:
                time.sleep(PAUSE_S / 4)
            return True

    def wait(self, log: Callable[[str], object] | None = None) -> int:
        """Wait until the job has ended. An attempt that was killed is submitted again (`retries`).

        Args:
            log: Called with new lines that the job has printed, as `print`.

        Returns:
            The exit status: 0 if every row is accounted for, 1 if the job failed, 2 if it is
            wrong, 130 if it was stopped.

        Raises:
            RunError: The cluster answers no more.
            RunInterrupted: The wait was interrupted. The job goes on.
        """
        client = connect(self.address)
        try:
            with explain_silence(self.address):
                return self._wait(client, log)
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"no longer waiting; the job goes on. Follow it: ray job logs --follow {self.id} "
                f"--address {self.address}. Stop it: ray job stop {self.id} --address "
                f"{self.address}"
            ) from None

    def result_line(self) -> str | None:
        """Return the line of JSON that the job has printed at its end.

        None if it did not come to it, or if Ray can't read its log.
        """
        try:
            lines = [line for line in self.logs().splitlines() if line.startswith('{"rows": ')]
        except RunError:
            return None
        return lines[-1] if lines else None

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps({"id": self.id, "address": self.address, "output": self.output})

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        lines = [("job", self.id), ("cluster", self.address)]
        return [make_fact_table([*lines, *([("output", self.output)] if self.output else [])])]

    def _wait(self, client: JobSubmissionClient, log: Callable[[str], object] | None) -> int:
        followers: list[LogFollower] = []
        silent_since = None
        while True:
            check_interrupts()
            attempts: list[JobDetails] = []
            try:
                attempts = self._list_attempts(client)
                if log is not None:
                    _show_new_lines(client, attempts, followers, log)
                silent_since = None
            except (OSError, RuntimeError) as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since <= SILENCE_S:
                    time.sleep(PAUSE_S)
                    continue
                if log is None or not attempts:
                    raise
                # Its node may be gone, or a library may have printed what is no text.
                log(f"Ray can't read the job's log ({cut_first_line(error)}); waiting without it")
                log = None
            last = attempts[-1]
            if last.status not in _ENDED:
                time.sleep(PAUSE_S)
            elif _was_killed(last) and len(attempts) <= int((last.metadata or {}).get(RETRIES, 0)):
                self._submit_again(client, last, len(attempts))
            else:
                if log is not None and last.status == "FAILED" and last.driver_exit_code is None:
                    # Its command was not started, or is lost.
                    log(f"Ray: {' '.join(str(last.message).split())[:_MESSAGE]}")
                return _exit_status(last)

    def _submit_again(self, client: JobSubmissionClient, job: JobDetails, number: int) -> None:
        submit_once(
            client,
            f"{self.id}-{number + 1}",
            entrypoint=str(job.entrypoint),
            runtime_env=job.runtime_env,
            metadata=job.metadata,
        )

    def _list_attempts(self, client: JobSubmissionClient) -> list[JobDetails]:
        """Return the job's attempts in their order."""
        try:
            first = client.get_job_info(self.id)
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise
            raise ConfigError(f"the cluster at {self.address} knows no job {self.id}") from None
        name = (first.metadata or {}).get(FIRST)
        others = [
            job
            for job in (client.list_jobs() if name and int(first.metadata[RETRIES]) else ())
            if (job.metadata or {}).get(FIRST) == name and job.submission_id != self.id
        ]
        return [first, *sorted(others, key=lambda job: job.start_time or 0)]


def _show_new_lines(
    client: JobSubmissionClient,
    attempts: list[JobDetails],
    followers: list[LogFollower],
    log: Callable[[str], object],
) -> None:
    """Hand over what attempts have printed since the last time. followers: one for each of them."""
    for number, one in enumerate(attempts):
        has_ended = one.status in _ENDED
        if number == len(followers):
            followers.append(LogFollower(client, str(one.submission_id)))
        elif number < len(followers) - 1:
            continue  # it had ended before the next one began
        if text := followers[number].read(has_ended):
            log(text.removesuffix("\n"))


def _read_logs(client: JobSubmissionClient, attempts: list[JobDetails]) -> str:
    return "".join(client.get_job_logs(str(one.submission_id)) for one in attempts)


def _was_killed(job: JobDetails) -> bool:
    """Return whether an attempt ended without a word. One that fails repeats itself."""
    return job.status == "FAILED" and job.driver_exit_code not in (1, 2, 130)


def _exit_status(job: JobDetails) -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return 130
    return job.driver_exit_code if job.driver_exit_code in (2, 130) else 1
