"""Long logs are not fetched again and again, and no line is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter

import pytest
from aiohttp import web
from pipemill.jobs.execution import supervisor
from pipemill.jobs.submission import follow_log, submission
from pipemill.jobs.submission.follow_log import LogFollower
from pipemill.jobs.submission.submission import Submission


class Head:
    """Ray's job API, as far as it tells the log of one job. `cuts` says when streams break."""

    def __init__(self, streams: bool, cuts: int | None = None) -> None:
        self.log, self.fetched, self.streamed = "", 0, 0
        self._streams, self._cuts = streams, cuts
        self.status, self.can_read = "RUNNING", True
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/jobs/mine", self._tell)
        app.router.add_get("/api/jobs/mine/logs", self._fetch)
        app.router.add_get("/api/jobs/mine/logs/tail", self._tail)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def _tell(self, request: web.Request) -> web.Response:
        about = {"type": "SUBMISSION", "submission_id": "mine", "entrypoint": "run"}
        return web.json_response({**about, "status": self.status, "driver_exit_code": 0})

    async def _fetch(self, request: web.Request) -> web.Response:
        self.fetched += 1
        if not self.can_read:
            raise web.HTTPInternalServerError(text="UnicodeDecodeError")
        return web.json_response({"logs": self.log})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        self.streamed += 1
        if not self._streams:
            raise web.HTTPNotFound
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        sent = 0
        for number in range(10**6):
            if number == self._cuts and request.transport is not None:
                request.transport.abort()
                break
            piece = self.log[sent : sent + 70]
            sent += len(piece)
            if piece:
                await stream.send_str(piece)
            else:
                await asyncio.sleep(0.01)
        return stream


def client(head: Head):
    from ray.dashboard.modules.job.sdk import JobSubmissionClient

    made = JobSubmissionClient.__new__(JobSubmissionClient)  # it asks for the version of a cluster
    made._address, made._cookies, made._headers = head.address, None, {}
    made._ssl_context = made._verify = None
    made._server_ray_version = "2.60.0"
    return made


@pytest.mark.parametrize(
    ("head", "fetches", "streams"),
    [
        (lambda: Head(streams=True), (2, 3), (1, 1)),
        (lambda: Head(streams=True, cuts=40), (3, 100), (2, 100)),
        (lambda: Head(streams=False), (10, 200), (2, 200)),
    ],
    ids=["streamed", "cut", "fetched"],
)
def test_all_lines_come_once(head, fetches, streams, monkeypatch):
    monkeypatch.setattr(follow_log, "_LONG", 500)
    head = head()
    follower = LogFollower(client(head), "mine")
    found = []
    for number in range(200):
        head.log += f"line {number} é" + "\n" * (number % 4) + "\n" * (number == 199)
        if text := follower.read(has_ended=False):
            assert text.endswith("\n")
            found.append(text)
        time.sleep(0.01)
    head.log += "half a line"
    last = follower.read(has_ended=True)
    assert "".join(found) + last == head.log
    assert len(found) > 10
    assert follower.read(has_ended=True) == ""
    assert fetches[0] <= head.fetched <= fetches[1] + 1 + 500 // 10
    assert streams[0] <= head.streamed <= streams[1]


def test_a_stream_that_is_cut_without_a_sign_is_given_up(monkeypatch):
    monkeypatch.setattr(follow_log, "_LONG", 10)
    monkeypatch.setattr(follow_log, "_QUIET_S", 0.2)
    head = Head(streams=True)
    head.log = "a line of more than ten characters\n"
    follower = LogFollower(client(head), "mine")
    assert follower.read(has_ended=False) == head.log
    fetched = head.fetched
    time.sleep(0.3)
    cut = follower._stream
    assert follower.read(has_ended=False) == ""
    assert head.fetched == fetched + 1
    cut._thread.join(10)
    assert not cut._thread.is_alive(), "its connection stays open"
    assert follower.read(has_ended=True) == ""
    assert follower._stream is None


def test_an_interrupt_that_a_destructor_swallowed_ends_the_wait(monkeypatch):
    head = Head(streams=True)
    monkeypatch.setattr(supervisor, "_arrived", Counter({signal.SIGINT: 1}))
    threading.Timer(1.0, lambda: setattr(head, "status", "SUCCEEDED")).start()
    with pytest.raises(KeyboardInterrupt):
        Submission("mine", head.address)._wait(client(head), None)


def test_a_log_that_ray_cannot_read_ends_no_wait(monkeypatch):
    """As if a library had printed bytes that are no text."""
    monkeypatch.setattr(submission, "SILENCE_S", 0.3)
    monkeypatch.setattr(submission, "PAUSE_S", 0.05)
    head = Head(streams=True)
    head.log = "a line\n"
    said = []

    def note(text):
        said.append(text)
        head.can_read = False
        if len(said) > 1:
            head.status = "SUCCEEDED"

    job = Submission("mine", head.address)
    assert job._wait(client(head), note) == 0
    assert said[0] == "a line"
    assert said[1].startswith("Ray can't read the job's log (Request failed with status code 500")
    assert len(said) == 2
