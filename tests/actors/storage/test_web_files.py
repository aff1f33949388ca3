"""Web servers that answer every request with the whole file."""

from __future__ import annotations

import gzip
import json
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations import http
from pipemill.actors.storage import backoff
from pipemill.actors.storage.filesystem import open_filesystem

from pipemill.errors import ConfigError
from tests.support.splits import plan, read, rows


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # fsspec asks for 5 MiB at a time.
    monkeypatch.setattr(http, "DEFAULT_BLOCK_SIZE", 2**16)
    http.HTTPFileSystem.clear_instance_cache()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    http.HTTPFileSystem.clear_instance_cache()


def test_any_part_is_read_in_any_order(url: str, tmp_path: Path) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(100_000))
    (tmp_path / "numbers").write_bytes(data)
    filesystem, path = open_filesystem(f"{url}/numbers", {})
    with filesystem.open(path, "rb") as file:
        for start in (399_996, 300_001, 12, 0, 350_000):
            file.seek(start)
            assert file.read(100) == data[start : start + 100]
        file.seek(1)
        assert file.read() == data[1:]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_each_split_is_read(url: str, tmp_path: Path, name: str) -> None:
    text = "".join(random.Random(0).choices("abcdefghijklmnop", k=2000))
    wanted = [{"id": number, "text": text[number:]} for number in range(400)]
    data = "".join(f"{json.dumps(row)}\n" for row in wanted).encode()
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(wanted), tmp_path / name, compression="none")
    else:
        (tmp_path / name).write_bytes(gzip.compress(data, 0) if name.endswith(".gz") else data)
    assert (tmp_path / name).stat().st_size > 2**19
    made = plan(f"{url}/{name}")
    assert len(made.splits) > 1 or name.endswith(".gz")
    assert rows(read(made)) == wanted


def test_parquet_of_a_server_that_gives_no_length_is_told_what_to_do(url, tmp_path, monkeypatch):
    """Such as a server that compresses, or makes, what it sends."""
    send = SimpleHTTPRequestHandler.send_header

    def send_no_length(handler, name, value):
        if name.lower() != "content-length":
            send(handler, name, value)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "send_header", send_no_length)
    pq.write_table(pa.table({"text": ["a"] * 9}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet as Parquet: .*no.*long.*download it first"):
        plan(f"{url}/a.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 9)
    assert len(rows(read(plan(f"{url}/a.jsonl")))) == 9


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_can_not_answer_is_asked_again(url, tmp_path, monkeypatch, status) -> None:
    monkeypatch.setattr(backoff, "WAITS_S", (0.0,) * 6)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' * 3)
    answer, asked = SimpleHTTPRequestHandler.send_head, []

    def fail_at_times(handler):
        asked.append(handler.path)
        if len(asked) % 3:
            return answer(handler)
        handler.send_error(status)
        return None

    for first in range(3):
        asked[:] = range(first)
        monkeypatch.setattr(SimpleHTTPRequestHandler, "send_head", fail_at_times)
        made = plan(f"{url}/a.jsonl")
        monkeypatch.setattr(SimpleHTTPRequestHandler, "send_head", answer)
        assert rows(read(made)) == [{"text": "one"}] * 3


def test_a_file_that_a_server_lacks_is_not_waited_for(url) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        plan(f"{url}/none.jsonl")
