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
from pipemill.actors.storage.filesystem import open_filesystem

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
