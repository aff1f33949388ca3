"""Lists and iterators of dicts or texts."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pipemill.jobs import prepare
from pipemill.jobs.output import stored_rows
from pipemill.jobs.rows import held_rows
from pipemill.jobs.rows.cell_values import make_column

import pipemill

TEXTS = ["It was a good year for wheat.", "No.", "Why not?\nBecause."]


def read_table(output):
    return pipemill.read(str(output)).to_table()


def rows(count):
    for number in range(count):
        yield {"text": f"text {number}", "n": number}


def test_texts_are_rows_of_one_column(answers):
    assert answers(TEXTS, "list")["text"].to_pylist() == TEXTS
    assert answers(tuple(TEXTS), "tuple")["text"].to_pylist() == TEXTS
    assert answers(iter(TEXTS), "iterator")["text"].to_pylist() == TEXTS
    blank = ["", *TEXTS, " \n"]
    assert answers(blank, "blank")["text"].to_pylist() == blank


def test_dicts_are_rows_and_a_missing_key_is_null(answers):
    given = [{"text": "a"}, {"n": 1.5, "text": "b"}, {"text": "c", "n": None}]
    found = answers(given).select(["text", "n"]).to_pylist()
    assert found == [{"text": "a", "n": None}, {"text": "b", "n": 1.5}, {"text": "c", "n": None}]
    assert answers(csv.DictReader(io.StringIO("text,n\na,1\n")), "csv")["n"].to_pylist() == ["1"]


def test_a_list_of_paths_stays_one(answers, tmp_path):
    for name in ("a b", "c"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
    paths = [str(tmp_path / "a b.parquet"), tmp_path / "c.parquet"]
    assert answers(paths)["text"].to_pylist() == ["a b", "c"]
    assert answers([str(tmp_path / "?.parquet")], "glob")["text"].to_pylist() == ["c"]


@pytest.mark.parametrize(
    "given", [["wheat", "rye"], ["data/train", "data/test", "some text"], ["some text", "a.csv"]]
)
def test_strings_that_may_be_either_are_refused_with_both_ways_out(given, job):
    with pytest.raises(pipemill.ConfigError, match="paths or texts: .* is no file") as caught:
        pipemill.run(**job(given))
    assert 'input={"path": [...]}; for texts, input=[{"text": text}' in str(caught.value)


def test_paths_that_are_not_there_are_never_texts(job):
    for given in (["data/train", "s3:/x"], {"path": ["no such file", "another one"]}, ["x y.csv"]):
        with pytest.raises(pipemill.ConfigError, match="no input at|can't list the input"):
            pipemill.run(**job(given))
    for given in ([""], ["data/train", " "]):
        with pytest.raises(pipemill.ConfigError):
            pipemill.run(**job(given))


class Unreadable(dict):
    def __iter__(self):
        raise RuntimeError("no keys")


def contains_itself():
    values = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"text": "a"}, "b"], r"the list mixes texts and dicts \(row 1\)"),
        ([{"text": "a"}, 3], "row 1 of the list is of the type int: rows are dicts, or texts"),
        ([{"text": "a", "n": 1}, {"n": "x"}], r"column 'n', rows 0 to 1, .*str \(row 1\)"),
        ([{"text": "a", None: 1}], "a column of the list is called None"),
        (
            [{"text": "a", "image": Image.new("RGB", (2, 2))}, {"text": "b", "image": "b.png"}],
            r"column 'image', rows 0 to 1, can't be stored: they are partly bytes \(or images\)",
        ),
        ([{"text": "a"}, None], "row 1 of the list is of the type NoneType: rows are dicts"),
        ([None, {"text": "a"}], "input is a list whose item 0 is of the type NoneType: a list"),
        (["a b", {"text": "a"}], "input is a list whose item 1 is of the type dict: a list"),
        ([["a"], ["b"]], "input is a list whose item 0 is of the type list: a list holds paths"),
        ([{}], "row 0 of the list has no keys"),
        ({"text": ["a", "b"]}, r"input is a dict of lists \(text\): give rows as a list of dicts"),
        ({"a": {"text": "x"}}.values(), "input is a dict_values: give rows as a list"),
        (
            [{"text": "a", "n": date(2026, 1, 2)}, {"text": "b", "n": datetime(2026, 1, 2, 3)}],
            "column 'n', .*they are partly dates and partly dates with a time",
        ),
        (
            [{"text": "a", "n": 2**53 + 1}, {"text": "b", "n": 0.5}],
            "column 'n', .* can't be stored",
        ),
        (
            [{"text": "a", "n": 0.5}, {"text": "b", "n": True}],
            r"'n', .*they are partly true or false and partly numbers.* bool \(row 1\)",
        ),
        *(
            ([{"text": "a", "n": value}, {"text": "b", "n": number}], "they are partly times and")
            for value in (date(2026, 1, 2), datetime(2026, 1, 2), np.timedelta64(1, "s"))
            for number in (1, 0.5)
        ),
        (
            [{"text": "a", "n": [{"x": 0.5}, {"x": True}]}],
            "'n', .*they are partly true or false and partly numbers",
        ),
        ([{"text": "a", "n": contains_itself()}], "row 0 of the list can't be read .Recursion"),
        ([Unreadable(text="a")], r"row 0 of the list can't be read \(RuntimeError: no keys\)"),
        ((x for x in ()), "a generator gave no row, and so no columns"),
    ],
)
def test_what_is_no_row_is_named(given, message, job):
    forms = [job(given), {"config": job(given, "again")}]
    for arguments in forms[: 1 if isinstance(given, Iterator) else 2]:
        with pytest.raises(pipemill.ConfigError, match=message):
            pipemill.run(**arguments)


@pytest.mark.parametrize(
    "value", ["x", 1.5, 2, True, date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)]
)
@pytest.mark.parametrize("missing", [pd.NaT, pd.NA, None])
def test_what_says_that_a_value_is_missing_goes_with_any_other(value, missing):
    for values in ([value, missing], [missing, value]):
        column = make_column("x", values)
        assert [one for one in column.to_pylist() if one is not None] == [value]


def test_whole_numbers_of_64_bits_and_tuples_and_empty_splits_are_rows(answers):
    assert answers(({"text": "a", "n": 2**64 - 1},))["n"].to_pylist() == [2**64 - 1]
    splits = answers({"train": [{"text": "a"}], "test": []}, "splits")
    assert splits["split"].to_pylist() == ["train"]


def test_a_column_whose_type_changes_on_the_way_is_named(job):
    many = ({"text": "a", "n": 1 if n < 1000 else "x"} for n in range(1500))
    with pytest.raises(pipemill.ConfigError, match=r"rows 1,000 to 1,499 of a generator .*int64"):
        pipemill.run(**job(many))
    numbers = ({"text": "a", "n": None if n < 1000 else n / 2} for n in range(1500))
    report = pipemill.run(**job(numbers, "floats", settings=["output.rows_per_part=2000"]))
    assert read_table(report.output)["n"].to_pylist()[998:1002] == [None, None, 500.0, 500.5]


def test_a_generator_is_read_once_and_then_the_output_goes_on(job, tmp_path):
    first = rows(25)
    assert pipemill.run(**job(first)).rows == 25
    min((tmp_path / "out").glob("part-*")).unlink()
    # It need not be the same one, nor a new one.
    for again, added in ((first, 8), (rows(3), 0)):
        report = pipemill.run(**job(again))
        assert (report.rows, report.added["rows"]) == (25, added)
        assert report.notes == ("the rows are those that this output stored of a generator before",)
    assert sorted(read_table(report.output)["n"].to_pylist()) == list(range(25))
    with pytest.raises(pipemill.ConfigError, match="the generator was read from before"):
        pipemill.run(**job(first, "other"))
    with pytest.raises(pipemill.ConfigError, match=r"another job: input.dataset \('iterator' then"):
        pipemill.run(**job([{"text": "a"}]))


def test_what_a_generator_raises_is_said_and_nothing_is_kept(job, tmp_path):
    def failing():
        yield from rows(1200)
        raise KeyError("no more")

    with pytest.raises(pipemill.RunError, match="generator raised after 1,200 rows: KeyError: 'no"):
        pipemill.run(**job(failing()))
    assert pipemill.run(**job(rows(5))).rows == 5


def test_nan_in_a_list_is_a_number_except_among_texts(answers):
    nan = float("nan")
    given = [{"text": "a", "n": nan, "s": "x"}, {"text": "b", "n": None, "s": nan}]
    found = answers(given)
    assert math.isnan(found["n"][0].as_py())
    assert found["n"].null_count == 1
    assert found["s"].to_pylist() == ["x", None]


def test_times_of_numpy_are_dates_and_times(answers):
    given = {
        "day": np.datetime64("2024-02-29"),
        "month": np.datetime64("2024-02"),
        "hour": np.datetime64("2024-02-29T05"),
        "none": np.datetime64("NaT"),
        "span": np.timedelta64(2, "D"),
        "fine": np.datetime64("2024-02-29T05:06:07.123456789"),
    }
    table = answers([{"text": "one", **given}, {"text": "two"}])
    assert table["day"].to_pylist() == [date(2024, 2, 29), None]
    assert table["month"].to_pylist() == [date(2024, 2, 1), None]
    assert table["hour"].to_pylist() == [datetime(2024, 2, 29, 5), None]
    assert table["none"].to_pylist() == [None, None]
    assert table["span"].to_pylist() == [timedelta(days=2), None]
    assert table["fine"].cast(pa.int64()).to_pylist() == [1709183167123456789, None]


def test_a_dict_without_keys_is_null_where_no_row_has_keys(answers):
    given = [{"text": "a", "m": {}, "l": [{}]}, {"text": "b", "m": {}, "l": []}]
    found = answers(given)
    assert found["m"].to_pylist() == [None, None]
    assert found["l"].to_pylist() == [[None], []]
    some = answers([{"text": "a", "m": {}}, {"text": "b", "m": {"x": 1}}], "some")
    assert some["m"].to_pylist() == [{"x": None}, {"x": 1}]


def test_memory_is_bounded_by_large_rows_and_shards(monkeypatch, answers, tmp_path):
    monkeypatch.setattr("pipemill.jobs.rows.python_rows._GROUP_BYTES", 50_000)
    monkeypatch.setattr(held_rows, "_SHARD_BYTES", 200_000)
    alive = most = 0

    class Large(str):
        def __init__(self, *_):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    given = ({"text": "a", "more": Large("x" * 10_000)} for _ in range(200))
    assert answers(given, settings=["output.rows_per_part=300"]).num_rows == 200
    assert most < 10
    files = list((tmp_path / "out").glob("*/input/*/*/*.rows"))
    assert len(files) > 5


def test_keys_that_only_some_rows_have_cost_no_look_at_all_earlier_ones(monkeypatch, answers):
    monkeypatch.setattr("pipemill.jobs.rows.python_rows.GROUP_ROWS", 1)
    compared, unify = [], pa.unify_schemas

    def count(schemas, **options):
        compared.append(len(schemas))
        return unify(schemas, **options)

    monkeypatch.setattr(held_rows.pa, "unify_schemas", count)
    given = [{"text": "a", **({"more": 1} if row % 2 else {})} for row in range(40)]
    assert answers(given).num_rows == 40
    assert sum(compared) < 4 * 40


_STORE = """
import sys, time, pipemill
from tests.support import light
from pipemill.jobs.rows import held_rows
light.install()
held_rows._SHARD_BYTES = 1
def rows():
    for n in range(5000):
        if n == int(sys.argv[2]):
            time.sleep(60)
        yield {"text": f"t {n}", "n": n}
report = pipemill.run(
    task="lengths", model=sys.argv[1] + "/model", input=rows(), actors={"placement": "local"},
    output={"path": sys.argv[1] + "/out", "rows_per_part": 1000},
)
print(report.rows, report.added["rows"])
"""


def test_killed_while_it_is_stored_every_row_is_there_once(job, tmp_path):
    """Killed before the first shard, between two, and while the rows are computed."""
    job([])
    env = {**os.environ, "PYTHONPATH": str(Path(pipemill.__file__).parent.parent)}
    command = [sys.executable, "-c", _STORE, str(tmp_path)]
    for waits_at, slow, sign in (
        (500, 0, "*/lease/*"),
        (3500, 0, "*/input/*/*/000001.rows"),
        (-1, 0.01, "*/plan.parquet"),
    ):
        process = subprocess.Popen([*command, str(waits_at)], env={**env, "LIGHT_SLOW": str(slow)})
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").glob(sign)):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
    done = subprocess.run([*command, "-1"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "5000"
    assert read_table(tmp_path / "out")["n"].to_pylist() == list(range(5000))
    assert len(list((tmp_path / "out").glob("*/input/*/*/*.rows"))) == 5


def test_a_stream_is_read_to_the_limit_and_no_further(answers, job, models):
    def endless():
        yield from rows(5)
        raise AssertionError("more than the limit was read")

    given = {"path": endless(), "limit": 5}
    assert answers(given)["n"].to_pylist() == list(range(5))
    given = {"path": {"train": list(rows(3)), "test": itertools.count()}, "limit": 3}
    assert answers(given, "splits")["split"].to_pylist() == ["train"] * 3
    assert answers({"path": list(rows(1500)), "limit": 1001}, "list")["n"][-1].as_py() == 1000
    job = {"task": "text-classification", "model": models["text-classification"]}
    shown = pipemill.preview(**job, input={"path": endless(), "limit": 5}, rows=8)
    assert (shown.rows, shown.notes) == (5, ())
    assert pipemill.plan(**job, input={"path": endless(), "limit": 5}, seconds=0.1).rows == 5


def test_a_run_that_reads_more_than_was_stored_stores_again(job, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "build_plan", fail)
        with pytest.raises(KeyboardInterrupt):
            pipemill.run(**job({"path": rows(9), "limit": 2}))
    assert pipemill.run(**job({"path": rows(9), "limit": 4})).rows == 4
    with pytest.raises(pipemill.ConfigError, match=r"input.limit \(4 then, None now\)"):
        pipemill.run(**job(rows(9)))
    assert pipemill.run(**job({"path": rows(9), "limit": 4})).added["rows"] == 0


def test_before_a_run_a_generator_gives_a_sample(models, monkeypatch):
    job = {"task": "text-classification", "model": models["text-classification"]}
    shown = pipemill.preview(**job, input=rows(20), rows=2)
    assert shown.table["text"].to_pylist() == ["text 0", "text 1"]
    assert shown.notes == ()
    monkeypatch.setattr(stored_rows, "_SAMPLE", held_rows.SampleSize(rows=1000, bytes=10**9))
    plan = pipemill.plan(**job, input=list(rows(2500)), rows=10, seconds=0.1)
    assert plan.rows == 2500
    assert plan.notes == ("only the first 1,000 rows of a list were looked at",)
    plan = pipemill.plan(**job, input=rows(2500), rows=10, seconds=0.1)
    assert plan.rows == 1000
    assert "rows of a generator were looked at; how many it has is not known" in plan.notes[0]
