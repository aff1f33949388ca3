"""Several dataset splits as one input."""

from __future__ import annotations

import pandas as pd
import pytest

import pipemill

datasets = pytest.importorskip("datasets")


def texts(*values):
    return datasets.Dataset.from_dict({"text": list(values)})


def pairs(table, column="split"):
    return list(zip(table["text"].to_pylist(), table[column].to_pylist(), strict=True))


EXPECTED = [("a", "train"), ("b", "train"), ("c", "test")]


def test_a_column_says_which_split_a_row_is_of(answers, job):
    train, test = texts("a", "b"), texts("c")
    assert pairs(answers(datasets.DatasetDict(train=train, test=test))) == EXPECTED
    # Equal ones go on, also in a plain dict.
    assert pipemill.run(**job({"train": train, "test": test})).added["rows"] == 0
    with pytest.raises(pipemill.ConfigError, match="another job: input.dataset"):
        pipemill.run(**job({"train": train, "other": test}))
    streams = datasets.IterableDatasetDict(
        train=train.to_iterable_dataset(), test=test.to_iterable_dataset()
    )
    assert pairs(answers(streams, "streams")) == EXPECTED
    mixed = {"train": pd.DataFrame({"text": ["a", "b"], "n": [1, 2]}), "test": [{"text": "c"}]}
    assert pairs(answers(mixed, "mixed")) == EXPECTED
    assert answers(mixed, "mixed")["n"].to_pylist() == [1, 2, None]


def test_an_empty_split_changes_no_type(answers, job):
    """The columns of a frame without rows are of numbers, or of anything."""
    empty = pd.DataFrame({"text": [], "n": [], "other": []}, dtype="float64")
    rows = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    for name, splits in {
        "last": {"train": rows, "x": empty},
        "first": {"x": empty, "train": rows},
    }.items():
        found = answers(splits, name)
        assert pairs(found) == EXPECTED[:2]
        assert str(found["n"].type) == "int64"
        assert found["other"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([float("nan")], ["n"]),  # pandas has floating-point numbers where texts are missing
        ([pd.NaT], [pd.Timestamp("2024-05-06", tz="UTC")]),
        ([[1]], [None]),
        (pd.Categorical(["a"]), ["b"]),
        ([pd.Timestamp("2024-05-06", tz="UTC")], [pd.Timestamp("2024-05-06", tz="Europe/Paris")]),
    ],
)
def test_splits_whose_types_go_together_as_those_of_files_do(answers, one, other):
    for number, splits in enumerate(({"train": one, "test": other}, {"train": other, "test": one})):
        frames = {k: pd.DataFrame({"text": ["a"], "n": column}) for k, column in splits.items()}
        found = answers(frames, f"out{number}")["n"].to_pylist()
        expected = [value for column in splits.values() for value in column]
        assert [None if pd.isna(v) is True else v for v in expected] == found


def test_a_column_whose_types_have_nothing_in_common_is_named(job):
    frames = {"train": pd.DataFrame({"text": ["a"], "n": [1]})}
    frames["test"] = pd.DataFrame({"text": ["b", "c"], "n": ["x", "y"]})
    said = r"column 'n' in the rows 1 to 2 of a dict of dataset splits is .*string, and was int64 b"
    with pytest.raises(pipemill.ConfigError, match=said):
        pipemill.run(**job(frames))


def test_a_split_without_the_column_is_told_from_the_others(job):
    other = datasets.Dataset.from_dict({"body": ["b"]})
    report = pipemill.run(**job(datasets.DatasetDict(train=texts("a"), test=other)))
    assert (report.done, report.dead) == (1, 1)
    (letter,) = pipemill.read(report.output, dead_letters=True).to_table().to_pylist()
    assert letter["input_split"] == "test"
    assert letter["message"] == "there is no column 'text' in these rows (columns: body, split)"


def test_a_column_of_that_name_stays(answers, job):
    rows = [{"text": "a", "split": 7}]
    found = answers({"train": rows, "test": rows})
    assert found["split"].to_pylist() == [7, 7]
    assert pairs(found, "dataset_split") == [("a", "train"), ("a", "test")]
    both = [{"text": "a", "split": 1, "dataset_split": 2}]
    for wrong in ({"train": both}, {"train": [{"text": "a"}], "test": rows}):
        with pytest.raises(pipemill.ConfigError, match="a column split or dataset_split in some"):
            pipemill.run(**job(wrong, "wrong"))


def test_keys_of_a_section_are_no_splits(answers, job):
    frame = pd.DataFrame({"text": ["a", "b"]})
    found = answers({"path": frame, "limit": 1})
    assert found["text"].to_pylist() == ["a"]
    with pytest.raises(
        pipemill.ConfigError, match="input.format is csv, but a pandas.DataFrame is"
    ):
        pipemill.run(**job({"path": frame, "format": "csv"}, "csv"))


def test_an_iterable_dataset_is_stored_once(answers, job):
    def rows():
        yield from ({"text": f"t {n}", "n": n} for n in range(1200))

    settings = ["output.rows_per_part=2000"]
    for number, made in enumerate(
        (
            datasets.IterableDataset.from_generator(rows),
            datasets.Dataset.from_generator(rows).to_iterable_dataset().map(lambda row: row),
        )
    ):
        found = answers(made, f"out-{number}", settings=settings)
        assert found["n"].to_pylist() == list(range(1200))
    report = pipemill.run(**job(made, "out-1", settings=settings))
    assert report.added["rows"] == 0
    assert report.notes[0].endswith("stored of a datasets.IterableDataset before")
