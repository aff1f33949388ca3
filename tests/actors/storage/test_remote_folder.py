"""A folder on an object store is fetched once for a machine, whole, whatever interrupts it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import fsspec
import pytest
from pipemill.actors.storage import remote_folder
from pipemill.actors.storage.remote_folder import (
    RemoteFolder,
    find_cache_folder,
    list_remote_folder,
)

from pipemill.errors import StoreError

FILES = {
    "config.json": b"{}",
    "model.safetensors": os.urandom(10_001),
    "1_Pooling/config.json": b'{"a": 1}',
    "empty.txt": b"",
}
LEFT_OUT = (".cache/x", "checkpoint-10/model.safetensors", "optimizer.pt", "rng_state_0.pth")


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(remote_folder, "_RANGE_BYTES", 1000)
    filesystem = fsspec.filesystem("memory")
    name = f"/{tmp_path.name}/model"
    for file, data in {**FILES, **dict.fromkeys(LEFT_OUT, b"left out")}.items():
        filesystem.pipe_file(f"{name}/{file}", data)
    yield f"memory:/{name}"
    filesystem.rm(f"/{tmp_path.name}", recursive=True)


def held(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def reads(monkeypatch):
    """The (name, first byte) of each range that is read; `reads.fails_at` is one that is not."""

    class Reads(list):
        fails_at = None

    seen, usual = Reads(), remote_folder._read

    def read(filesystem, path, starts, stops):
        seen.extend((path.rpartition("model/")[2], start) for start in starts)
        if seen.fails_at in seen:
            raise PermissionError("no more")
        return usual(filesystem, path, starts, stops)

    monkeypatch.setattr(remote_folder, "_read", read)
    return seen


def test_the_copy_holds_the_same_bytes_and_is_kept(url, reads):
    found = list_remote_folder(url, {})
    folder = found.fetch()
    assert held(folder) == FILES
    assert folder.parent == find_cache_folder()
    assert folder.name.startswith("model-")
    before = len(reads)
    assert list_remote_folder(url, {}).fetch() == folder
    assert len(reads) == before == 13


def test_what_was_fetched_before_a_failure_is_not_fetched_again(url, reads):
    found = list_remote_folder(url, {})
    reads.fails_at = ("model.safetensors", 8000)
    with pytest.raises(PermissionError):
        found.fetch()
    assert not found.copy.exists()
    assert ("model.safetensors", 0) in reads
    reads.clear()
    reads.fails_at = None
    assert held(found.fetch()) == FILES
    assert set(reads) == {("model.safetensors", start) for start in range(8000, 10_001, 1000)}


def test_another_content_is_another_copy(url):
    first = list_remote_folder(url, {}).fetch()
    fsspec.filesystem("memory").pipe_file(f"{url.removeprefix('memory:/')}/config.json", b"[]")
    second = list_remote_folder(url, {}).fetch()
    assert held(second) == {**FILES, "config.json": b"[]"}
    assert held(first) == FILES


def test_a_folder_that_changes_on_the_way_is_not_used(url, monkeypatch):
    found = list_remote_folder(url, {})
    filesystem = fsspec.filesystem("memory")
    name = url.removeprefix("memory:/")
    filesystem.pipe_file(f"{name}/model.safetensors", os.urandom(10_001))
    with pytest.raises(StoreError, match=f"{url} has changed since it was listed"):
        found.fetch()
    filesystem.pipe_file(f"{name}/model.safetensors", b"short")
    with pytest.raises(StoreError, match="model.safetensors has changed since it was listed"):
        found.fetch()
    assert not found.copy.exists()
    filesystem.pipe_file(f"{name}/model.safetensors", FILES["model.safetensors"])
    assert held(list_remote_folder(url, {}).fetch()) == FILES


def test_another_machine_fetches_its_own_copy(url, monkeypatch, tmp_path):
    found = list_remote_folder(url, {})
    assert "secret" not in repr(replace(found, options='{"key": "secret"}'))
    here = found.fetch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "there"))
    travelled: RemoteFolder = pickle.loads(pickle.dumps(found))
    there = travelled.fetch()
    assert there != here
    assert held(there) == FILES


def test_the_cache_is_where_the_users_caches_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert find_cache_folder() == tmp_path / ".cache/pipemill/models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert find_cache_folder() == tmp_path / "x/pipemill/models"
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert find_cache_folder() == tmp_path / "hf/pipemill/models"


FETCH_SLOWLY = """
import sys, time
from pipemill.actors.storage import remote_folder
usual = remote_folder._read
remote_folder._RANGE_BYTES, remote_folder._RANGES = 1000, 1
reads = 0
def read(*arguments):
    global reads
    reads += 1
    time.sleep(0.1)
    return usual(*arguments)
remote_folder._read = read
remote_folder.list_remote_folder(sys.argv[1], {}).fetch()
print(reads)
"""


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A folder that other processes can list, too."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    source = tmp_path / "model"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    return list_remote_folder(f"file://{source}", {})


def start(folder):
    command = [sys.executable, "-c", FETCH_SLOWLY, folder.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_one_process_fetches_while_others_wait(listed):
    processes = [start(listed) for _ in range(4)]
    counts = [int(process.communicate()[0]) for process in processes]
    assert sorted(counts) == [0, 0, 0, 13]
    assert held(listed.copy) == FILES


def test_killed_at_any_moment_the_next_one_ends_it(listed):
    partial = listed.copy.with_name(f"{listed.copy.name}.partial")
    fetched = 0
    for _ in range(4):
        process = start(listed)
        until = time.monotonic() + 20
        while _size(partial) <= fetched and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        fetched = _size(partial)
    assert 0 < fetched < listed.size
    assert not listed.copy.exists()
    assert held(listed.fetch()) == FILES


def _size(folder):
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0
