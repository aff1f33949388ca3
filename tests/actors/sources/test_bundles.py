"""Very many small files of rows: neighbours share a split."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.sources import split_ranges
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.reading import Reading
from pipemill.actors.split import Split
from pipemill.actors.storage.input_file import InputFile
from pipemill.jobs.output.split_plan import Plan

import pipemill
from tests.support import light
from tests.support.splits import plan, read, rows

COUNTS = [3, 0, 1, 2, 5, 1, 1, 40, 2, 3, 1, 4]


@pytest.fixture
def few(monkeypatch):
    """Bundle as of a million files: up to 4 of the 12 that these tests have."""
    monkeypatch.setattr(split_ranges, "_FEWEST_TO_BUNDLE", 3)


def write_csv(path, texts):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write_gzip(path, texts):
    with gzip.open(path, "wt") as file:
        file.writelines(f"{text}\n" for text in texts)


def write_tar(path, texts):
    with tarfile.open(path, "w") as tar:
        for text in texts:
            member = tarfile.TarInfo(f"{text}.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


def write_parquet(path, texts):
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def write_arrow(path, texts):
    feather.write_feather(pa.table({"text": pa.array(texts, pa.string())}), str(path))


FORMATS = {
    "parquet": write_parquet,
    "arrow": write_arrow,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "txt": lambda path, texts: path.write_text("".join(f"{text}\n" for text in texts)),
    "txt.gz": write_gzip,
    "tar": write_tar,
}


def write_files(folder: Path, suffix: str, counts=COUNTS) -> list[str]:
    """Write a file for each count of rows; return all texts."""
    texts = [[f"{i}-{row}{'-' * 40}" for row in range(count)] for i, count in enumerate(counts)]
    for i, own in enumerate(texts):
        path = folder / f"lang={'ab'[i % 2]}" / f"{i:02}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[suffix](path, own)
    return [text for own in [*texts[::2], *texts[1::2]] for text in own]


def column(batches, name):
    return [row[name] for row in rows(batches)]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("per_part", "limit"), [(None, None), (8, None), (None, 11), (8, 60)])
def test_files_of_each_format_share_splits(tmp_path, few, suffix, per_part, limit):
    texts = write_files(tmp_path / "in", suffix)
    made = plan(tmp_path / "in", per_part, limit)
    assert Plan.from_bytes(made.to_bytes()) == made
    batches = read(made)
    text = "txt" if suffix == "tar" else "text"
    assert column(batches, text) == texts[:limit]
    assert column(batches, "lang") == [
        "ab"[int(one.partition("-")[0]) % 2] for one in texts[:limit]
    ]
    bundled = [len(split.bundle) for split in made.splits]
    assert max(bundled) > 1
    assert len(made.splits) < 12
    for split, batch in zip(made.splits, batches, strict=True):
        assert split.rows in (None, batch.rows.num_rows)
        assert per_part is None or batch.rows.num_rows <= per_part
        if split.bundle:
            assert sum(batch.file_rows) == batch.rows.num_rows
            assert len(batch.file_rows) == len(split.bundle)


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.none() | st.integers(0, 30), st.integers(0, 2**26)), max_size=40),
    step=st.none() | st.integers(1, 40),
    limit=st.none() | st.integers(1, 300),
    many=st.integers(1, 50),
)
def test_a_bundle_is_never_more_than_a_split(sizes, step, limit, many):
    files = [InputFile(f"{i}.parquet", size, "1") for i, (_, size) in enumerate(sizes)]
    counts = [rows for rows, _ in sizes]
    with pytest.MonkeyPatch.context() as patch:
        plain = list(split_ranges.cut_rows(files, counts, 1000, step, limit))
        patch.setattr(split_ranges, "_FEWEST_TO_BUNDLE", many)
        made = list(split_ranges.cut_rows(files, counts, 1000, step, limit))
    told = []
    for one in made:
        assert len(one.bundle) <= max(len(files) // many, 1)
        if not one.bundle:
            told.append((one.file, one.start, one.stop, one.rows))
            continue
        assert one.rows == sum(one.counts)
        assert one.file.size <= split_ranges.MOST_BYTES
        assert step is None or one.rows <= step
        told += [(file, 0, n, n) for file, n in zip(one.bundle, one.counts, strict=True)]
    assert told == [(one.file, one.start, one.stop, one.rows) for one in plain]
    if many > len(files) // 2:
        assert made == plain


def test_few_files_have_their_own_parts_and_very_many_share_some():
    def cut(count):
        files = [InputFile(f"{i:07}.parquet", 2000, "1") for i in range(count)]
        return list(split_ranges.cut_rows(files, [10] * count, 2000 * count, None, None))

    assert [len(cut(count)) for count in (1, 300, 511)] == [1, 300, 511]
    assert len(cut(20_000)) == 257
    assert 977 <= len(cut(1_000_000)) <= 1300


def test_the_first_rows_of_very_many_files_are_several_splits():
    files = [InputFile(f"{i:07}.parquet", 2000, "1") for i in range(100_000)]
    made = list(split_ranges.cut_rows(files, [10] * len(files), 2 * 10**8, None, 10_000))
    assert 32 <= len(made) <= 40


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_first_rows_of_an_input_are_several_splits(tmp_path, suffix):
    write_files(tmp_path, suffix, [40_000])
    for limit in (None, 3200):
        assert 32 <= len(plan(tmp_path, None, limit).splits) <= 33


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_empty_files_do_not_keep_others_apart(tmp_path, few, suffix):
    write_files(tmp_path, suffix, [1, 1, 0, 0] * 6)
    made = plan(tmp_path)
    assert [len(split.bundle) for split in made.splits] == [8, 4]


def test_a_file_that_cannot_be_read_is_one_dead_letter_of_its_bundle(tmp_path, few):
    texts = write_files(tmp_path, "jsonl", [2] * 12)
    (tmp_path / "lang=a/04.jsonl").write_bytes(gzip.compress(b"not what its name says"))
    batches = read(made := plan(tmp_path))
    ((batch, split),) = [
        (batch, split) for batch, split in zip(batches, made.splits, strict=True) if batch.failures
    ]
    (row,) = batch.failures
    assert "04.jsonl as JSON" in batch.failures[row].message
    assert batch.file_rows[[Path(f.path).name for f in split.bundle].index("04.jsonl")] == 1
    texts[4:6] = [None]
    assert column(batches, "text") == texts


def test_what_a_file_lacks_is_said_of_that_file(tmp_path, few):
    reading = Reading(kinds={"text": "text"})
    for i in range(12):
        write_jsonl(tmp_path / f"{i:02}.jsonl", ["a", "b"])
    (tmp_path / "05.jsonl").write_text('{"other": 1}\n')
    batches = read(plan(tmp_path, reading=reading), reading)
    (reasons,) = [batch.lacking for batch in batches if "text" in batch.lacking]
    assert "05.jsonl" in reasons["text"]
    (tmp_path / "05.jsonl").write_text('{"other": 1}\n')
    (tmp_path / "06.jsonl").write_text('{"text": null}\n')
    made = plan(tmp_path, reading=reading)
    source = open_source("jsonl", {}, made.schema, reading)
    both = [
        source.read(split)
        for split in made.splits
        if {"05.jsonl", "06.jsonl"} <= {Path(file.path).name for file in split.files()}
    ]
    assert [batch.lacking.get("text") for batch in both] == [None] * len(both)


def test_a_bundle_is_named_by_its_first_file(tmp_path, few):
    write_files(tmp_path, "csv", [1] * 12)
    split = next(split for split in plan(tmp_path).splits if len(split.bundle) > 2)
    assert split.place == f"{split.bundle[0].path} and {len(split.bundle) - 1} more files"
    assert Split.from_json(split.to_json()) == split


@pytest.fixture
def job(tmp_path, monkeypatch, few):
    """Of 12 files of 2 rows, up to 4 in a split; the second row of the sixth file is dead."""
    light.install(monkeypatch)
    (tmp_path / "in").mkdir()
    for i in range(12):
        texts = [f"{i}-0", "bad9" if i == 5 else f"{i}-1"]
        write_jsonl(tmp_path / "in" / f"{i:02}.jsonl", texts)
    return {**light.job(tmp_path, []), "input": str(tmp_path / "in")}


def texts_of(job):
    return pipemill.read(job["output"]["path"]).to_table()["text"].to_pylist()


def test_a_dead_letter_of_a_bundle_is_found_in_its_file(tmp_path, job):
    report = pipemill.run(job)
    assert (report.rows, report.dead, report.splits) == (24, 1, 3)
    (reason,) = report.dead_reasons
    assert (reason["example"]["input"], reason["example"]["row"]) == (
        str(tmp_path / "in/05.jsonl"),
        1,
    )
    assert f"({tmp_path}/in/05.jsonl, row 1)" in str(report)
    found = pipemill.verify(job["output"]["path"])
    assert (found.ok, found.rows) == (True, 24)
    assert pipemill.retry({**job, "parameters": {"healed": 9}}).dead == 0
    assert pipemill.run({**job, "parameters": {}}).added["rows"] == 0
    assert sorted(texts_of(job)) == sorted(
        [f"{i}-{row}" for i in range(12) for row in (0, 1) if (i, row) != (5, 1)] + ["bad9"]
    )


def test_a_row_that_stops_the_run_is_named_by_its_file(tmp_path, job):
    job["output"] = {**job["output"], "on_error": "raise"}
    with pytest.raises(pipemill.RunError, match=r"row 1 of \S+/in/05\.jsonl failed"):
        pipemill.run(job)


def test_the_rows_of_files_that_the_input_no_longer_names_are_counted(tmp_path, job):
    write_jsonl(tmp_path / "in/03.jsonl", [f"3-{i}" for i in range(4)])
    pipemill.run(job)
    (tmp_path / "in/03.jsonl").unlink()
    assert pipemill.run(job).unnamed_input["rows"] == 4


def test_a_bundle_with_a_file_that_changed_is_computed_again(tmp_path, job):
    pipemill.run(job)
    write_jsonl(tmp_path / "in/06.jsonl", ["new"])
    with pytest.raises(pipemill.ConfigError, match=r"06\.jsonl has changed"):
        pipemill.run(job)
    report = pipemill.run(job, on_changed="reprocess")
    assert (report.rows, report.added["rows"]) == (23, 7)
    assert "new" in texts_of(job)
    assert "6-0" not in texts_of(job)
    assert pipemill.verify(job["output"]["path"]).ok


def test_a_bundle_that_lost_a_file_before_it_was_done_keeps_the_others(tmp_path, job):
    pipemill.run(job)
    part = sorted(Path(job["output"]["path"]).glob("*.parquet"))[1]
    part.unlink()
    (tmp_path / "in/06.jsonl").unlink()
    with pytest.raises(pipemill.RunError, match=r"06\.jsonl no longer exists.*reprocess"):
        pipemill.run(job)
    report = pipemill.run(job, on_changed="reprocess")
    assert (report.rows, report.added["rows"]) == (22, 6)
    assert not [text for text in texts_of(job) if text.startswith("6-")]
    assert pipemill.verify(job["output"]["path"]).ok


def test_a_bundle_may_lose_a_file_and_have_one_that_changed_before_it_was_done(tmp_path, job):
    pipemill.run(job)
    sorted(Path(job["output"]["path"]).glob("*.parquet"))[1].unlink()
    write_jsonl(tmp_path / "in/07.jsonl", ["new"])
    (tmp_path / "in/06.jsonl").unlink()
    report = pipemill.run(job, on_changed="reprocess")
    assert (report.rows, report.added["rows"]) == (21, 5)
    assert "new" in texts_of(job)
    assert pipemill.verify(job["output"]["path"]).ok
    write_jsonl(tmp_path / "in/01.jsonl", ["newer"])
    (tmp_path / "in/02.jsonl").unlink()
    with pytest.raises(pipemill.ConfigError, match=r"02\.jsonl is not in the input, and shares"):
        pipemill.run(job, on_changed="reprocess")
