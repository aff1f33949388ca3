"""What verify finds in an output that was changed, and nothing in one that was not."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.actors.output.part_file import (
    check_part,
    encode_part,
    from_ranges,
    read_footer,
    to_ranges,
)
from pipemill.actors.output.part_footer import DeadLetterFooter
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main
from pipemill.jobs.measuring.row_difference import max_difference
from pipemill.jobs.output.lease import Lease
from pipemill.pipelines.media.encode import encode_png

import pipemill
from pipemill.errors import ConfigError, RunError
from tests.support import light, tiny

TEXTS = [f"text {i}" if i % 7 else "bad1" for i in range(45)]
LETTERS = "_pipemill/dead-letter"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An output of five parts, and the name of each."""
    with pytest.MonkeyPatch.context() as patch:
        light.install(patch)
        folder = tmp_path_factory.mktemp("whole")
        pipemill.run(light.job(folder, TEXTS))
        other = tmp_path_factory.mktemp("other")
        pipemill.run({**light.job(folder, TEXTS, parameters={"healed": 1}), "output": {
            "path": str(other / "out"), "rows_per_part": 10}})  # fmt: skip
    return folder / "out", other / "out"


@pytest.fixture
def out(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "out")
    return tmp_path / "out"


def names(out):
    return sorted(part.name for part in out.glob("part-*"))


def problems(out) -> list[str]:
    return pipemill.verify(str(out)).findings


def test_an_output_that_nobody_touched_is_well(out, capsys):
    assert main(["verify", str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    told = json.loads(stdout)
    assert (told["ok"], told["problems"], told["parts"]) == (True, 0, 5)
    assert (told["rows"], told["dead"], told["done"]) == (45, 7, 38)
    assert "every input row is there exactly once" in stderr


def remove(out, name):
    (out / name).unlink()


def cut_off(out, name):
    (out / name).write_bytes((out / name).read_bytes()[:-300])


def empty(out, name):
    (out / name).write_bytes(b"")


def edit(out, name):
    """As pyarrow and others do, who hand the footer's notes on."""
    notes = pq.read_metadata(out / name).metadata
    table = pq.read_table(out / name)
    texts = ["another", *table["again"].to_pylist()[1:]]
    table = table.set_column(2, "again", pa.array(texts))
    pq.write_table(table.replace_schema_metadata({b"pipemill": notes[b"pipemill"]}), out / name)


def write_again(out, name):
    pq.write_table(pq.read_table(out / name).slice(1), out / name)


def of_another_job(out, name, whole):
    shutil.copy(whole[1] / name, out / name)


def as_another_split(out, name):
    shutil.copy(out / names(out)[0], out / name)


def other_column(out, name):
    footer = read_footer(out / name)
    table = pq.read_table(out / name).rename_columns(["n", "text", "again", "size"])
    (out / name).write_bytes(encode_part(table, footer))


def a_row_less(out, name):
    footer = read_footer(out / name)
    (out / name).write_bytes(encode_part(pq.read_table(out / name).slice(1), footer))


def letters_instead(out, name):
    shutil.copy(out / LETTERS / names(out)[0], out / name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "is missing, the part of split 2"),
        (cut_off, "is damaged"),
        (empty, "is damaged"),
        (edit, "it was changed after pipemill wrote it"),
        (write_again, "it was not written by pipemill"),
        (as_another_split, "it is the part of split 0, under the name of split 2"),
        (
            other_column,
            "its columns are n: int64, text: string, again: string, size: int32, others",
        ),
        (a_row_less, "it holds 7 rows, not 8"),
        (letters_instead, "it holds dead letters"),
    ],
)
def test_a_part_that_was_changed_is_named(out, damage, message):
    name = names(out)[2]
    damage(out, name)
    (found,) = problems(out)
    assert found.startswith(name)
    assert message in found


def test_of_a_run_that_goes_on_it_says_who_may_write_the_missing_parts(out):
    remove(out, names(out)[2])
    with Lease(Store(str(out))) as lease:
        lease.acquire()
        (note,) = pipemill.verify(str(out)).notes
        assert note.startswith("`pipemill run` of ")
        assert note.endswith(") holds the output, and may write what is missing")
    assert pipemill.verify(str(out)).notes == []


@pytest.mark.parametrize("folder", ["", LETTERS])
def test_a_file_that_may_not_be_read_is_not_called_damaged(out, monkeypatch, folder):
    bad = next(name for name in names(out) if (out / folder / name).exists())
    plain = Store.open

    def forbid(self, name):
        if name == os.path.join(folder, bad):
            raise PermissionError("AccessDenied")
        return plain(self, name)

    monkeypatch.setattr(Store, "open", forbid)
    (found,) = problems(out)
    assert found == f"{os.path.join(folder, bad)} can't be read (PermissionError: AccessDenied)"


@pytest.mark.parametrize("folder", ["", LETTERS])
def test_a_file_that_the_disk_can_not_read_is_named_beside_the_others(out, monkeypatch, folder):
    monkeypatch.setattr("pipemill.actors.storage.backoff.WAITS_S", (0.01,) * 6)
    bad = next(name for name in names(out) if (out / folder / name).exists())
    plain = Store.open

    def fail(self, name):
        if name == os.path.join(folder, bad):
            raise OSError(errno.EIO, "Input/output error")
        return plain(self, name)

    monkeypatch.setattr(Store, "open", fail)
    (found,) = problems(out)
    assert found.startswith(f"{os.path.join(folder, bad)} can't be read (OSError: ")


def test_a_disk_that_can_read_no_file_is_not_waited_for(out, monkeypatch):
    monkeypatch.setattr("pipemill.actors.storage.backoff.WAITS_S", (0.01,) * 2)
    monkeypatch.setattr("pipemill.jobs.measuring.verify_files._MOST_UNREADABLE", 1)
    plain, tried = Store.open, set()

    def fail(self, name):
        if not name.endswith(".parquet"):
            return plain(self, name)
        tried.add(name)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "open", fail)
    with pytest.raises(RunError, match="Input/output error"):
        pipemill.verify(out)
    assert tried


def test_a_store_that_is_away_for_a_moment_is_asked_again(out, monkeypatch):
    monkeypatch.setattr("pipemill.actors.storage.backoff.WAITS_S", (0.01,) * 6)
    plain, calls = Store.open, Counter()

    def fail_once(self, name):
        calls[name] += 1
        if calls[name] == 1:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        return plain(self, name)

    monkeypatch.setattr(Store, "open", fail_once)
    assert problems(out) == []


def test_a_part_whose_footer_may_not_be_read_is_not_called_damaged(out, monkeypatch):
    def forbid(self, name, size):
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(Store, "read_end", forbid)
    with pytest.raises(ConfigError, match=r"^can't read .*/part-0\S+.parquet: Permission"):
        pipemill.status(out)


def test_a_part_of_another_job_is_named(out, whole):
    of_another_job(out, names(out)[2], whole)
    (found,) = problems(out)
    assert "another job wrote it (lengths, " in found


def test_what_readers_would_take_for_more_rows_is_named(out, capsys):
    part = names(out)[1]
    shutil.copy(out / part, out / f"{part[:13]}-copy.parquet")
    (out / "more").mkdir()
    shutil.copy(out / part, out / "more" / part)
    (out / "notes.txt").write_text("mine")
    (out / f".{part}.123.tmp").write_bytes(b"of a killed writer")
    assert main(["verify", str(out)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [finding.split(" is ")[0] for finding in told["findings"]] == [
        f"more/{part}",
        "notes.txt",
        f"{part[:13]}-copy.parquet",
    ]
    assert "a second part of split 1, and readers take its rows too" in told["findings"][0]


def letters_gone(out, name):
    (out / LETTERS / name).unlink()


def letters_edited(out, name):
    table = pq.read_table(out / LETTERS / name)
    pq.write_table(table, out / LETTERS / name)


def letters_doubled(out, name):
    table = pq.read_table(out / LETTERS / name)
    split = pq.read_table(out / LETTERS / name)["split"][0].as_py()
    (out / LETTERS / name).write_bytes(
        encode_part(pa.concat_tables([table, table]), DeadLetterFooter(split))
    )


def letters_swapped(out, name):
    shutil.copyfile(out / LETTERS / names(out)[0], out / LETTERS / name)


def letters_foreign(out, name):
    shutil.copyfile(out / LETTERS / name, out / LETTERS / "part-of-mine.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (letters_gone, "lacks rows 3, which"),
        (letters_edited, "it was not written by pipemill"),
        (letters_doubled, "has a row twice"),
        (letters_swapped, "belongs to split 0, not 2"),
        (letters_foreign, "part-of-mine.parquet belongs to no split of the plan"),
    ],
)
def test_dead_letters_that_do_not_fit_are_named(out, damage, message):
    name = next(n for n in names(out) if n.startswith("part-00000002"))
    damage(out, name)
    (found,) = problems(out)
    assert found.startswith(LETTERS)
    assert message in found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), letters=st.booleans())
def test_no_bit_of_a_part_or_of_its_letters_can_change_unseen(whole, place, bit, letters):
    name = names(whole[0])[0]
    file = whole[0] / LETTERS / name if letters else whole[0] / name
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    try:
        _, wrong = check_part(pa.BufferReader(bytes(data)))
    except Exception as error:
        wrong = str(error)
    assert wrong


@given(st.sets(st.integers(0, 60)))
def test_ranges_are_the_numbers(numbers):
    ranges = to_ranges(sorted(numbers))
    assert from_ranges(ranges).tolist() == sorted(numbers)
    assert all(stop < start for stop, start in zip(ranges[1::2], ranges[2::2], strict=False))


def test_distance():
    assert max_difference({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}) == pytest.approx(0.2)
    assert max_difference(float("nan"), float("nan")) == 0
    assert max_difference(0.5, float("nan")) == float("inf")
    assert (
        max_difference("a", "b")
        == max_difference([1.0], [1.0, 2.0])
        == max_difference(None, 1.0)
        == float("inf")
    )
    assert max_difference(float("inf"), float("inf")) == max_difference(None, None) == 0


def test_pictures_may_be_a_level_apart_which_is_rounding():
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = encode_png(levels)
    assert max_difference(picture, encode_png(levels + 1)) == 0
    for other in (levels + 2, levels.T, np.stack([levels] * 3, axis=-1)):
        assert max_difference(picture, encode_png(other)) == float("inf")
    mask = levels > 5
    assert max_difference(encode_png(mask), encode_png(~mask)) == float("inf")
    assert max_difference(picture, picture[:40]) == float("inf")
    assert max_difference(b"RIFF1", b"RIFF2") == float("inf")


LONG = tiny.sentence(200, 3)


def sampled(models, tmp_path, task, texts, parameters=None, **more):
    pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), tmp_path / "in.parquet")
    wanted = {
        "task": task,
        "model": models[task],
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 12, **more},
        "parameters": parameters or {},
        "actors": {"placement": "local"},
    }
    pipemill.run(wanted)
    return wanted, pipemill.verify(str(tmp_path / "out"), sample=1000)


@pytest.mark.parametrize(
    ("task", "parameters", "windows"),
    [
        ("text-classification", {"top_k": 2}, 1),
        ("text-classification", {"truncation": True, "max_length": 20}, 0),
        ("zero-shot-classification", {"candidate_labels": ["river", "bread"]}, 0),
        ("feature-extraction", {"normalize": True}, 1),
        ("feature-extraction", {"pooling": "max", "truncation": True, "max_length": 20}, 0),
        ("token-classification", {"aggregation_strategy": "simple"}, 0),
    ],
)
def test_a_sample_again_by_plain_transformers(models, tmp_path, task, parameters, windows):
    texts = [None, *tiny.texts(25, seed=3, longest=30), LONG]
    _, found = sampled(models, tmp_path, task, texts, parameters)
    assert (found.findings, found.dead) == ([], 1)
    assert found.sample is not None
    assert found.sample.rows == 26
    assert (found.sample.transformers, found.sample.pipemill) == (26 - windows, windows)
    assert found.sample.difference < 1e-4


def test_a_sample_of_values_that_python_has_not(models, tmp_path):
    texts = tiny.texts(4, seed=3)
    odd = {
        "time": pa.array([2**62, -(2**62), 0, None], pa.timestamp("us")),
        "day": pa.array([2**31 - 1, -(2**31), 0, None], pa.date32()),
        "map": pa.array([[("a", float("nan"))], [], None, [("b", 1.0)]],
                        pa.map_(pa.string(), pa.float64())),
    }  # fmt: skip
    pq.write_table(pa.table({"text": [*texts[:3], None], **odd}), tmp_path / "in.parquet")
    pipemill.run(
        task="text-classification",
        model=models["text-classification"],
        input=str(tmp_path / "in.parquet"),
        output={"path": str(tmp_path / "out"), "max_errors": None},
        actors={"placement": "local"},
    )
    found = pipemill.verify(str(tmp_path / "out"), sample=9)
    assert found.findings == []
    assert found.sample is not None
    assert found.sample.rows == 3
    assert pipemill.report(str(tmp_path / "out"))


def test_a_sample_finds_answers_under_the_wrong_rows(models, tmp_path, capsys):
    texts = tiny.texts(25, seed=3, longest=30)
    _, found = sampled(models, tmp_path, "text-classification", texts)
    assert found.findings == []
    for part in (tmp_path / "out").glob("part-*"):
        footer = read_footer(part)
        table = pq.read_table(part)
        swapped = table.take(pa.array([1, 0, *range(2, len(table))]))
        for name in ("n", "text"):
            swapped = swapped.set_column(swapped.column_names.index(name), name, table[name])
        part.write_bytes(encode_part(swapped, footer))
    assert pipemill.verify(str(tmp_path / "out")).findings == []
    assert main(["verify", str(tmp_path / "out"), "--sample", "25"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == 6
    assert "row 0 of split 0" in told["findings"][0]
    assert "again it is {'label': " in told["findings"][0]


def test_a_sample_of_retried_rows_has_their_own_parameters(models, tmp_path):
    texts = [f"{text} [MASK]" for text in tiny.texts(14, seed=3, longest=30)]
    texts[5] = f"[MASK] {LONG} [MASK]"  # no window holds both
    wanted, found = sampled(models, tmp_path, "fill-mask", texts)
    assert (found.dead, found.findings) == (1, [])
    cut = {"tokenizer_kwargs": {"truncation": True, "max_length": 60}}
    assert pipemill.retry({**wanted, "parameters": cut}).dead == 0
    found = pipemill.verify(str(tmp_path / "out"), sample=14)
    assert found.findings == []
    assert found.sample is not None
    assert found.sample.transformers == 14


def test_a_sample_needs_the_input_and_the_model_that_computed_the_output(models, tmp_path):
    shutil.copytree(models["text-classification"], tmp_path / "model")
    places = {"text-classification": str(tmp_path / "model")}
    sampled(places, tmp_path, "text-classification", tiny.texts(3, seed=3))
    (tmp_path / "in.parquet").rename(tmp_path / "away")
    with pytest.raises(pipemill.ConfigError, match=r"sample needs the input, and .*in\.parquet"):
        pipemill.verify(str(tmp_path / "out"), sample=1)
    (tmp_path / "model/more").write_text("")
    with pytest.raises(pipemill.ConfigError, match="is not the one that computed"):
        pipemill.verify(str(tmp_path / "out"), sample=1)
