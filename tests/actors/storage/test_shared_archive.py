"""Archives stay open while they are used, and thousands of them are not open at once."""

from __future__ import annotations

import io
import os
import random
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from pipemill.actors.storage import shared_archive
from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.actors.storage.listing import list_below
from pipemill.actors.storage.shared_archive import open_archive

SIZE = 100_000


def make(path, content):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.bin", content)
        return
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a.bin")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_many_archives_few_are_open_and_those_that_are_read(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(shared_archive, "_MOST", 3)
    contents = [bytes([number]) * SIZE for number in range(40)]
    for number, content in enumerate(contents):
        make(tmp_path / f"{number}.{kind}", content)
    urls = [f"{kind}://a.bin::{tmp_path}/{number}.{kind}" for number in range(40)]

    def opened(url):
        filesystem, path = open_filesystem(url, {})
        return filesystem.open(path, "rb")

    before = len(os.listdir("/proc/self/fd"))
    first = opened(urls[0])
    assert first.read(10) == contents[0][:10]
    for url, content in zip(urls, contents, strict=True):
        with opened(url) as file:
            assert file.read() == content
    assert len(os.listdir("/proc/self/fd")) <= before + 5
    assert first.read() == contents[0][10:], "its archive is no longer among the last ones"


def test_archives_are_opened_at_the_same_time_and_each_once(tmp_path):
    make(tmp_path / "a.zip", b"a")
    both, made = threading.Barrier(2), []

    def open_zip(name):
        made.append(name)
        if len(made) <= 2:
            both.wait(5)  # for the other name
        return fsspec.filesystem("zip", fo=str(tmp_path / "a.zip"))

    with ThreadPoolExecutor(4) as threads:
        names = ["one", "other", "one", "other"]
        found = list(
            threads.map(
                lambda name: open_archive((name, str(tmp_path)), lambda: open_zip(name)), names
            )
        )
    assert sorted(made) == ["one", "other"]
    assert found[0] is found[2]
    assert found[1] is found[3]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_was_replaced_is_listed_and_read_as_it_is_now(tmp_path, kind):
    """As in a notebook, which runs a job again."""
    url = f"{kind}://*.bin::{tmp_path}/it.{kind}"
    for content in (b"old", b"newer"):
        make(tmp_path / f"new.{kind}", content)
        os.replace(tmp_path / f"new.{kind}", tmp_path / f"it.{kind}")
        (file,) = list_below(url, {}, None).files
        filesystem, path = open_filesystem(file.path, {})
        assert (file.size, filesystem.cat_file(path)) == (len(content), content)


def test_each_file_of_a_zip_seeks_from_its_own_place(tmp_path):
    texts = {name: bytes(random.Random(name).choices(b"abcdefgh", k=3_000_000)) for name in "ab"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    opened = {}
    for name in texts:
        filesystem, path = open_filesystem(f"zip://{name}::{tmp_path}/a.zip", {})
        opened[name] = filesystem.open(path, "rb")
    for place in range(0, 3_000_000, 700_000):
        for name, file in opened.items():
            file.seek(place)
            assert file.read(100) == texts[name][place : place + 100]
