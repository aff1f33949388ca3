"""A store that refuses to read on, in the middle of a split: rows are not blamed for it."""

from __future__ import annotations

import io
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.split import Split
from pipemill.actors.storage.listing import stat


def write_parquet(file):
    texts = [f"text {i:05}" for i in range(20_000)]
    pq.write_table(pa.table({"text": texts}), file, row_group_size=5000)


def write_tar(file):
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(200):
            member = tarfile.TarInfo(f"{number:03}.bin")
            member.size = 5000
            archive.addfile(member, io.BytesIO(bytes(5000)))


class Refusing(io.BytesIO):
    """A file that is read up to a place; then the credentials expire."""

    def read(self, *size):
        if self.left < 0:
            raise PermissionError("the token has expired")
        data = super().read(*size)
        self.left -= len(data)
        return data

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize(
    ("format", "write"), [("parquet", write_parquet), ("webdataset", write_tar)]
)
def test_the_split_is_tried_again(format, write, monkeypatch):
    file = io.BytesIO()
    write(file)
    url = f"memory://refused.{format}"
    fsspec.filesystem("memory").pipe_file("/refused." + format, file.getvalue())
    found = stat(url, {})
    source = open_source(format, {})
    schema = source.infer_schema([found])
    (piece, *_) = source.plan_splits([found], None, None)
    source = open_source(format, {}, schema)
    split = Split(0, url, found.size, found.version, piece.start, piece.stop, piece.rows)
    assert not source.read(split).failures

    def refuse(filesystem, path, *_, **__):
        opened = Refusing(file.getvalue())
        opened.left = len(file.getvalue()) // 3
        return opened

    monkeypatch.setattr(MemoryFileSystem, "_open", refuse)
    with pytest.raises(PermissionError, match="the token has expired"):
        source.read(split)
