"""Follow what a job on a cluster prints, also where that is a hundred megabytes."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Characters from which on a log is not fetched again as a whole each time.
_LONG = 2**20
# A stream that brings nothing for so long may be cut without a sign of it.
_QUIET_S = 300.0
# Characters a second that are fetched at most, where a log can't be streamed.
_PACE = 1e6


class LogFollower:
    """What one attempt of a job prints, from its first line on.

    A short log is fetched, all of it each time. A long one comes as a stream; if that breaks, what
    is missing is fetched, and another stream begins behind it.
    """

    def __init__(self, client: JobSubmissionClient, submission_id: str) -> None:
        self._client, self._id = client, submission_id
        self._seen = 0  # characters
        self._line = ""  # the last one, if it has no end yet
        self._stream: _LogStream | None = None
        self._wait_until = 0.0

    def read(self, has_ended: bool) -> str:
        """Return the lines that are new; what is left of the log if the attempt has ended.

        Raises:
            OSError, RuntimeError: The job API does not answer.
        """
        text = self._line + self._read(has_ended)
        cut = len(text) if has_ended else text.rfind("\n") + 1
        self._line = text[cut:]
        return text[:cut]

    def _read(self, has_ended: bool) -> str:
        stream = self._stream
        if stream is not None and not has_ended:
            text = stream.take()
            self._seen += len(text)
            if text or not stream.is_over():
                return text
        if stream is not None:
            stream.close()
            self._stream = None
        if time.monotonic() < self._wait_until and not has_ended:
            return ""
        whole = self._client.get_job_logs(self._id)
        text, self._seen = whole[self._seen :], len(whole)
        self._wait_until = time.monotonic() + self._seen / _PACE
        if self._seen > _LONG and not has_ended:
            self._stream = _LogStream(self._client, self._id, self._seen)
        return text


class _LogStream:
    """The log of a job behind its first characters, over a connection that stays open."""

    def __init__(self, client: JobSubmissionClient, submission_id: str, skip: int) -> None:
        self._client, self._id, self._skip = client, submission_id, skip
        self._pieces: SimpleQueue[str] = SimpleQueue()
        self._heard = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="pipemill-log")
        self._thread.start()

    def take(self) -> str:
        """Return what came since the last time."""
        pieces = []
        try:
            while True:
                pieces.append(self._pieces.get_nowait())
        except Empty:
            return "".join(pieces)

    def is_over(self) -> bool:
        """Return whether no more is to be expected. What came last may not be taken yet."""
        is_quiet = time.monotonic() > self._heard + _QUIET_S
        return is_quiet or (not self._thread.is_alive() and self._pieces.empty())

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the thread has ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        # What follows is fetched, and that says what is wrong.
        with suppress(Exception, asyncio.CancelledError):
            asyncio.run(self._receive())

    async def _receive(self) -> None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        async for text in self._client.tail_job_logs(self._id):
            self._heard = time.monotonic()
            if new := text[self._skip :]:
                self._pieces.put(new)
            self._skip = max(self._skip - len(text), 0)
