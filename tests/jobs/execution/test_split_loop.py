"""What is said of splits that could not be processed."""

from __future__ import annotations

import shutil

import pytest
from pipemill.actors.faults.blame import MediaAway
from pipemill.actors.sources.parquet import ParquetSource
from pipemill.jobs.monitoring import failed_splits

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


def test_media_of_a_server_that_is_away_stop_no_other_split(tmp_path, monkeypatch, capsys):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"text {n}" for n in range(60)])
    expand = light.Light.expand

    def expand_some(task, rows):
        if "text 20" in rows["text"].to_pylist():
            raise MediaAway("http://away does not answer")
        return expand(task, rows)

    monkeypatch.setattr(light.Light, "expand", expand_some)
    with pytest.raises(pipemill.RunError, match=r"^5 of 6 splits(.|\n)*: http://away does not"):
        pipemill.run(**wanted)
    assert capsys.readouterr().err.count("a split is left undone: http://away does not") == 1
    monkeypatch.setattr(light.Light, "expand", expand)
    report = pipemill.run(**wanted)
    assert (report.done, report.dead, report.added["rows"]) == (60, 0, 10)


def test_a_run_that_can_read_no_split_tries_only_some_more(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"text {n}" for n in range(60)], rows_per_part=2)
    read, tried, refused = ParquetSource.read, [], {3, *range(10, 30)}

    def read_some(source, split):
        tried.append(split.number)
        if split.number in refused:
            raise PermissionError("the token has expired")
        return read(source, split)

    monkeypatch.setattr(ParquetSource, "read", read_some)
    monkeypatch.setattr(failed_splits, "_MOST_REFUSED", 5)
    with pytest.raises(pipemill.RunError, match=r"^9 of 30 splits(.|\n)*the token has expired"):
        pipemill.run(**wanted)
    assert tried == list(range(15))
    refused.clear()
    assert pipemill.run(**wanted).done == 60


def test_a_file_that_may_not_be_read_stops_no_other_file(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"text {n}" for n in range(60)], rows_per_part=2)
    (tmp_path / "in.parquet").rename(tmp_path / "b.parquet")
    for name in "ac":
        shutil.copy(tmp_path / "b.parquet", tmp_path / f"{name}.parquet")
    wanted["input"] = str(tmp_path / "*.parquet")
    read = ParquetSource.read

    def read_some(source, split):
        if "b.parquet" in split.path:
            raise PermissionError("not yours")
        return read(source, split)

    monkeypatch.setattr(ParquetSource, "read", read_some)
    monkeypatch.setattr(failed_splits, "_MOST_REFUSED", 5)
    with pytest.raises(pipemill.RunError, match=r"^60 of 90 splits") as raised:
        pipemill.run(**wanted)
    _, line = str(raised.value).splitlines()
    assert "b.parquet [0:2] (split 30 and 29 more of this file): PermissionError: not" in line
    monkeypatch.setattr(ParquetSource, "read", read)
    assert pipemill.run(**wanted).done == 180


def test_splits_are_not_tried_for_ever_while_a_server_of_media_is_away(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"text {n}" for n in range(60)], rows_per_part=2)
    expand, tried = light.Light.expand, []

    def expand_none(task, rows):
        tried.append(rows)
        raise MediaAway("http://away does not answer")

    monkeypatch.setattr(light.Light, "expand", expand_none)
    monkeypatch.setattr(failed_splits, "_MOST_REFUSED", 5)
    with pytest.raises(pipemill.RunError, match="5 splits in a row need media of a server that is"):
        pipemill.run(**wanted)
    assert len(tried) == 5
    monkeypatch.setattr(light.Light, "expand", expand)
    assert pipemill.run(**wanted).done == 60
