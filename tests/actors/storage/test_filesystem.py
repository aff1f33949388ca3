import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pipemill.actors.storage.filesystem import open_filesystem, write_atomic
from pipemill.actors.storage.listing import list_below, stat
from pipemill.jobs.planning.find_inputs import list_files

from pipemill.errors import ConfigError


def test_a_file_is_whole_or_not_there_when_its_writer_is_killed(tmp_path):
    """A writer killed at a random moment, again and again."""
    target = tmp_path / "out" / "part.parquet"
    size = 4_000_000
    code = f"""
import sys
from fsspec.implementations.local import LocalFileSystem
from pipemill.actors.storage.filesystem import write_atomic
print("ready", flush=True)
while True:
    write_atomic(LocalFileSystem(), {str(target)!r}, b"x" * {size})
"""
    for wait in (0.0, 0.003, 0.01, 0.02, 0.03):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(wait)
        writer.kill()
        writer.wait()
        visible = [p for p in target.parent.glob("*") if not p.name.startswith(".")]
        assert all(p == target and p.stat().st_size == size for p in visible)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "part").mkdir()  # where the file should go
    with pytest.raises(OSError):
        write_atomic(fsspec.filesystem("file"), str(tmp_path / "part"), b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["part"]


def test_any_fsspec_url_is_written_and_read():
    filesystem, path = open_filesystem("memory://bucket/out", {})
    write_atomic(filesystem, f"{path}/a", b"abc")
    assert filesystem.cat_file(f"{path}/a") == b"abc"


def test_a_quoted_file_url_is_that_of_the_file(tmp_path):
    for name in ("a b", "a%20b/c d"):
        (tmp_path / name).mkdir(parents=True)
    inner = tmp_path / "a%20b/c d/e#.jsonl"
    inner.write_text("{}")

    def opened(url):
        return open_filesystem(url, {})[1]

    assert opened((tmp_path / "a b").as_uri()) == f"{tmp_path}/a%20b", "such a name is there"
    for path in (inner, inner.parent, tmp_path / "new one", tmp_path / "new/50%/x"):
        assert opened(path.as_uri()) == opened(str(path)) == str(path)
    assert opened(f"{inner.parent.as_uri()}/*.jsonl") == f"{inner.parent}/*.jsonl"
    assert opened(f"file://{tmp_path}/a%20b/*.jsonl") == f"{tmp_path}/a%20b/*.jsonl"


def test_an_unknown_protocol_is_named():
    with pytest.raises(ConfigError, match=r"can't open nope://x.*nope"):
        open_filesystem("nope://x", {})
    with pytest.raises(ConfigError, match=r"can't open S3://b/x: .*; write s3://$"):
        open_filesystem("S3://b/x", {})


@pytest.mark.parametrize("place", ["memory://of-one-file", "{tmp_path}"])
def test_a_file_has_one_version_however_it_is_found(tmp_path, place):
    folder = place.format(tmp_path=tmp_path)
    with fsspec.open(f"{folder}/rows.jsonl", "w") as file:
        file.write("{}")
    (listed,) = list_below(folder, {}, None).files
    assert listed.version
    assert stat(listed.path, {}) == listed
    assert list_below(f"{folder}/rows.jsonl", {}, None).files == [listed]


def test_a_store_is_not_asked_for_each_file_that_fits_a_pattern(monkeypatch):
    for n in range(50):
        MemoryFileSystem().pipe_file(f"/patterns/day={n % 2}/{n:02}.parquet", b"PAR1")
    asked = []
    find = MemoryFileSystem.find

    def note(self, path, *arguments, **keywords):
        asked.append(path)
        return find(self, path, *arguments, **keywords)

    monkeypatch.setattr(MemoryFileSystem, "find", note)
    listing = list_below("memory://patterns/day=1/*.parquet", {}, None)
    assert [file.path[-10:] for file in listing.files] == [
        f"{n:02}.parquet" for n in range(1, 50, 2)
    ]
    assert {file.size for file in listing.files} == {4}
    assert len(asked) == 1


def test_files_of_a_web_server_are_found_by_a_pattern_or_with_a_query(tmp_path):
    for name, rows in (("a", b"{}\n"), ("b", b"{}\n{}\n")):
        (tmp_path / f"{name}.jsonl").write_bytes(rows)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    files = list_below(f"{url}/*.jsonl", {}, None).files
    # The server leaves the query out of account, and so would find any file below it.
    signed = list_files(f"{url}/b.jsonl?X-Signature=a.b%2Fc&x", "auto", {}, None)
    server.shutdown()
    server.server_close()
    assert [(file.path, file.size) for file in files] == [
        (f"{url}/a.jsonl", 3),
        (f"{url}/b.jsonl", 6),
    ]
    assert [(file.path, file.size) for file in signed.files] == [
        (f"{url}/b.jsonl?X-Signature=a.b%2Fc&x", 6)
    ]
    assert signed.format == "jsonl"
