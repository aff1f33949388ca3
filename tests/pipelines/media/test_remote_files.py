"""What a row names on a web server or in a store is read only from below the job's roots."""

from __future__ import annotations

import posixpath
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.faults import watchdog
from pipemill.actors.faults.blame import MediaAway
from pipemill.actors.storage import backoff
from pipemill.actors.storage.backoff import WAITS_S
from pipemill.pipelines.media import MediaAccess, remote_files

REFUSED = "not below any of input.media_roots.*add its folder or URL to input.media_roots"


def test_stores_by_their_prefix():
    files = fsspec.filesystem("memory")
    for name in ("a#1?.jpg", "b.jpg", "c::d.jpg", "e::f/g.jpg", "../other/b.jpg"):
        name = posixpath.normpath(f"/bucket/pics/{name}")
        files.pipe_file(name, b"x" + name.encode())
    access = MediaAccess(roots=("memory://bucket/pics",))
    access.check()
    assert access.fetch("memory://bucket/pics/b.jpg") == b"x/bucket/pics/b.jpg"
    assert access.fetch("a#1?.jpg") == b"x/bucket/pics/a#1?.jpg"
    for name in ("c::d.jpg", "e::f/g.jpg"):  # of one file, not a joint of two
        for path in (name, f"memory://bucket/pics/{name}"):
            assert access.fetch(path) == f"x/bucket/pics/{name}".encode()
    inside = MediaAccess(roots=("memory://bucket/pics/e::f/",))
    assert inside.fetch("g.jpg") == b"x/bucket/pics/e::f/g.jpg"
    with pytest.raises(FileNotFoundError, match="^no file at 'memory://bucket/pics/no.jpg'"):
        access.fetch("memory://bucket/pics/no.jpg")
    for name in (
        "memory://bucket/other/b.jpg",
        "memory://bucket/pics/../other/b.jpg",
        "memory://bucket/picsother/b.jpg",
        "../other/b.jpg",
        "pics/x::memory://bucket/other/b.jpg",
        "simplecache::memory://bucket/pics/b.jpg",
        "memory://bucket/pics/x::memory://bucket/other/b.jpg",
        "/bucket/pics/b.jpg",
        "s3://bucket/pics/b.jpg",
    ):
        with pytest.raises(PermissionError, match=REFUSED):
            access.fetch(name)


def test_a_relative_path_begins_beside_its_rows_and_may_go_up_inside_the_root():
    files = fsspec.filesystem("memory")
    for name in (
        "/store/in/train/0.jpg",
        "/store/in/0.jpg",
        "/store/in/pics/1.jpg",
        "/store/2.jpg",
    ):
        files.pipe_file(name, name.encode())
    access = MediaAccess(roots=("memory://store/in",))
    beside = access.beside("memory://store/in/train")
    assert beside.fetch("0.jpg") == b"/store/in/train/0.jpg"
    assert beside.fetch("pics/1.jpg") == b"/store/in/pics/1.jpg"  # beside the input's folder
    for name in ("../pics/1.jpg", "a/../../pics/./1.jpg"):
        assert beside.fetch(name) == b"/store/in/pics/1.jpg"
    for name in ("../../2.jpg", "../../../../../2.jpg", "%2e%2e/%2e%2e/2.jpg", "..%2f..%2f2.jpg"):
        with pytest.raises(PermissionError, match=REFUSED):
            beside.fetch(name)
    # The folder of rows that lie elsewhere opens nothing.
    for other in ("memory://store", "memory://store/in2", None):
        assert access.beside(other).fetch("0.jpg") == b"/store/in/0.jpg"


class _Server:
    """A web server on loopback that counts what is asked of it."""

    def __init__(self, redirects: dict[str, str], busy: int = 0) -> None:
        """busy: how many requests are told to come again."""
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                location = redirects.get(self.path)
                status = 302 if location else 404 if "no.jpg" in self.path else 200
                self.send_response(503 if len(asked) <= busy else status)
                if location:
                    self.send_header("Location", location)
                body = b"" if location else f"{self.path}|{self.headers.get('X-Key')}".encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def web():
    evil = _Server({})
    redirects = {
        "/pics/inside": "/pics/a.jpg",
        "/pics/out": "/private/a.jpg",
        "/pics/climb": "/pics/%2e%2e/private/a.jpg",
        "/pics/evil": f"{evil.url}/pics/a.jpg",
        "/pics/schemeless": f"{evil.url.removeprefix('http:')}/pics/a.jpg",
        "/pics/twice": "/pics/evil",
        "/pics/file": "file:///etc/passwd",
    }
    good = _Server(redirects)
    yield good, evil
    for each in (good, evil):
        each.server.shutdown()
        each.server.server_close()


def test_web_below_its_prefix(web):
    good, _ = web
    access = MediaAccess(
        roots=(f"{good.url}/pics/",), options='{"http": {"headers": {"X-Key": "k"}}}'
    )
    access.check()
    assert access.fetch(f"{good.url}/pics/a.jpg?size=1#top") == b"/pics/a.jpg?size=1|k"
    assert access.fetch(f"{good.url.upper()}/pics/a%2Fb.jpg") == b"/pics/a%2Fb.jpg|k"
    assert access.fetch("a #%.jpg") == b"/pics/a%20%23%25.jpg|k"
    assert access.fetch(f"{good.url}/pics/inside") == b"/pics/a.jpg|k"
    with pytest.raises(FileNotFoundError, match=r"^no file at 'http://.*no.jpg'"):
        access.fetch(f"{good.url}/pics/no.jpg")


@pytest.mark.parametrize("busy", [2, 3])
def test_a_server_that_is_busy_is_asked_again(monkeypatch, busy):
    monkeypatch.setattr(remote_files, "_WAITS_S", (0.0, 0.0))
    server = _Server({}, busy)
    access = MediaAccess(roots=(f"{server.url}/pics",))
    if busy == 2:
        assert access.fetch("a.jpg") == b"/pics/a.jpg|None"
    else:
        with pytest.raises(OSError, match=r"^can't read 'http://.*a.jpg' \(ClientResponse.*503"):
            access.fetch("a.jpg")
    assert len(server.asked) == 3
    server.server.shutdown()
    server.server.server_close()


def test_a_server_that_is_away_is_no_fault_of_a_row(monkeypatch):
    monkeypatch.setattr(remote_files, "_WAITS_S", (0.0,))
    monkeypatch.setattr(backoff, "WAITS_S", (0.0, 0.0))
    server, gone = _Server({}, busy=3), _Server({})
    gone.server.shutdown()
    gone.server.server_close()
    access = MediaAccess(roots=(f"{server.url}/pics", f"{gone.url}/pics"), waits=True)
    assert access.fetch(f"{server.url}/pics/a.jpg") == b"/pics/a.jpg|None"
    assert server.asked == ["/pics/a.jpg", "/pics/a.jpg", "/pics", "/pics/a.jpg"]
    with pytest.raises(MediaAway, match=r"^http://127.*does not answer: .*tried 3 times"):
        access.fetch(f"{gone.url}/pics/a.jpg")
    monkeypatch.setattr(backoff, "WAITS_S", (99.0,))
    with pytest.raises(MediaAway, match=r"^http://127.*does not answer; run again"):
        access.fetch(f"{gone.url}/pics/b.jpg")  # at once
    server.server.shutdown()
    server.server.server_close()


def test_a_server_that_takes_a_request_and_says_nothing_is_away(monkeypatch):
    """Its watchdog would end the process that waits for it."""
    monkeypatch.setattr(remote_files, "_WAITS_S", (0.0,))
    monkeypatch.setattr(backoff, "WAITS_S", (0.0,))
    monkeypatch.setattr(remote_files, "_SILENT_S", 0.2)
    monkeypatch.setattr(remote_files, "_SOON_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        root = f"http://127.0.0.1:{server.getsockname()[1]}/pics"
        access, started = MediaAccess(roots=(root,), waits=True), time.monotonic()
        with pytest.raises(MediaAway, match="does not answer: it sent nothing for 0.2 s"):
            access.fetch("a.jpg")
        server.accept()
        server.accept()
        server.settimeout(0.5)  # it was asked for the file, and for its root
        with pytest.raises(TimeoutError):
            server.accept()
        with pytest.raises(MediaAway, match="does not answer; run again"):
            access.fetch("b.jpg")
    assert time.monotonic() - started < 60
    assert remote_files._WHOLE_S + 1.2 * max(WAITS_S) < watchdog.LEAST_S


def test_a_server_that_answers_gets_no_more_time_for_a_file(monkeypatch):
    monkeypatch.setattr(remote_files, "_WAITS_S", (0.0,))
    server = _Server({}, busy=2)  # the root is given then
    access = MediaAccess(roots=(f"{server.url}/pics",), waits=True)
    with pytest.raises(OSError, match=r"^can't read 'http://.*a.jpg' \(ClientResponse.*503"):
        access.fetch("a.jpg")
    server.server.shutdown()
    server.server.server_close()


def test_keys_of_a_store_are_not_sent_to_the_web(web):
    good, _ = web
    access = MediaAccess(roots=(f"{good.url}/pics",), options='{"headers": {"X-Key": "secret"}}')
    assert access.fetch("a.jpg") == b"/pics/a.jpg|None"


@pytest.mark.parametrize("name", ["out", "climb", "evil", "schemeless", "twice", "file"])
def test_redirects_out_of_the_root_are_not_followed(web, name):
    good, evil = web
    access = MediaAccess(roots=(f"{good.url}/pics",))
    with pytest.raises(PermissionError, match=r"^redirected out of input.media_roots: .*leads to"):
        access.fetch(f"{good.url}/pics/{name}")
    assert not evil.asked
    assert not [path for path in good.asked if not path.startswith("/pics/")]


WEB_PIECES = st.sampled_from(
    ".. . pics private a.jpg %2e%2e %252e%252e ..%2f %2F \..\ @ : ..;x ? # // pics/ "
    "//EVIL @EVIL #@EVIL ?@EVIL \@EVIL".split()
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WEB_PIECES, max_size=6), st.sampled_from(["/", "/pics/", "@EVIL/", "", ".EVIL/"]))
def test_no_url_leaves_its_root(web, pieces, start):
    good, evil = web
    del good.asked[:]
    name = good.url + start + "/".join(pieces)
    name = name.replace("EVIL", evil.url.removeprefix("http://"))
    try:
        MediaAccess(roots=(f"{good.url}/pics",)).fetch(name)
    except (OSError, ValueError):
        assert not good.asked or good.asked[0].startswith("/pics/")
    assert not evil.asked
    for path in good.asked:
        plain = unquote(unquote(path.split("?")[0])).replace("\\", "/")
        assert plain.startswith("/pics/")
        assert ".." not in plain.split("/")


@pytest.mark.parametrize(
    "name",
    [
        "https://host.evil.com/pics/a.jpg",
        "https://host@evil.com/pics/a.jpg",
        "https://user@host/pics/a.jpg",
        "https://host:444/pics/a.jpg",
        "http://host/pics/a.jpg",
        "https://host/picsx/a.jpg",
        "https://host/PICS/a.jpg",
        "https://host/pics",
        "https://host\\@evil.com/pics/a.jpg",
        "https://evil.com#@host/pics/a.jpg",
        "https://evil.com?@host/pics/a.jpg",
        "https:///pics/a.jpg",
        "https://ｈost/pics/a.jpg",
        "https://host/pics/..;/private",
        "https://host/pics/%25252e%25252e/a.jpg",
    ],
)
def test_other_hosts_are_refused_before_any_request(name):
    with pytest.raises(PermissionError, match=REFUSED):
        MediaAccess(roots=("https://host/pics",)).fetch(name)
