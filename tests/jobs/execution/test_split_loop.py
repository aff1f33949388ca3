"""What is said of splits that could not be processed."""

from __future__ import annotations

import pytest
from pipemill.actors.sources.parquet import ParquetSource

import pipemill
from tests.support import light


def test_of_many_splits_that_fail_the_first_are_named(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"text {n}" for n in range(60)])
    read = ParquetSource.read

    def read_some(source, split):
        if split.number:
            raise ValueError(f"split {split.number} is gone")
        return read(source, split)

    monkeypatch.setattr(ParquetSource, "read", read_some)
    with pytest.raises(pipemill.RunError) as raised:
        pipemill.run(**wanted)
    first, *named, more = str(raised.value).splitlines()
    assert first == "1 of 6 splits are done; run again to do the others. What stopped them:"
    assert [line.rpartition(": ")[2] for line in named] == [f"split {n} is gone" for n in (1, 2, 3)]
    assert more == "… and 2 more"
    monkeypatch.setattr(ParquetSource, "read", read)
    assert pipemill.run(**wanted).done == 60
