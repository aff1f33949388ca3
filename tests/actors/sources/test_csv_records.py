"""Where records of CSV start and stop is found without parsing most lines."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.parsing.csv_records import Dialect, find_record_offsets, find_records
from pipemill.actors.sources.reading import Reading

from pipemill.errors import ConfigError
from tests.support.splits import plan, read, rows

PIECES = st.sampled_from(["a", ",", '"', '""', "\n", "\r\n", "\r", " ", "\0", "\xe9"])


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=20))
@example(["a", ",", '"', "\n", '"', "\n", "\n", "b", "\n"])
@example(["a", "\n", "\r", "\r", "\n", '"', "b", "\n"])
@example(['"', "a", ",", "\n", "\n", "b", ",", "\n"])
@example(['"', "a", ",", "\n", "a", '"', " ", ",", "\n", "b", ",", "\n"])
def test_they_are_those_that_parsing_finds(pieces):
    data = "".join(pieces).encode("latin-1")
    for how in ((Dialect(), None, 7), (Dialect(), 2, 7), (Dialect(quotes=False), None, 7)):
        parsed = [(record.start, record.stop) for record in find_records(io.BytesIO(data), *how)]
        assert list(find_record_offsets(io.BytesIO(data), *how)) == parsed


# As Common Voice and GLUE have them: the second row's quote would close in the fifth.
SPOKEN = [
    ["id", "text", "votes"],
    ["1", "They left.", "2"],
    ["2", '"I heard it, he said.', "3"],
    ["3", "Who?", "1"],
    ["4", 'The "mill" there.', "1"],
    ["5", "Nobody.", "0"],
    ["6", '"Yes," she said.', "4"],
]


@pytest.fixture
def spoken(tmp_path):
    file = tmp_path / "spoken.tsv"
    file.write_text("".join("\t".join(row) + "\n" for row in SPOKEN))
    return file


@pytest.mark.parametrize("rows_per_part", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("start", ["", "0\tFirst.\t0\n"])
def test_a_quote_that_closes_inside_another_row_swallows_none(spoken, rows_per_part, start):
    header, rest = spoken.read_text().split("\n", 1)
    spoken.write_text(f"{header}\n{start}{rest}")
    batches = read(plan(spoken, rows_per_part))
    got = {row["id"]: row["text"] for row in rows(batches)}
    assert got == {
        **({"0": "First."} if start else {}),
        None: None,
        "1": "They left.",
        "3": "Who?",
        "4": 'The "mill" there.',
        "5": "Nobody.",
        "6": "Yes, she said.",
    }
    (failure,) = (failure for batch in batches for failure in batch.failures.values())
    assert "set input.quotes to false" in failure.message
    assert f"(line {4 if start else 3} of " in failure.message


@pytest.mark.parametrize("closing", ['6\tMice.\tThe "mill" there.\n', '6\tMice.\tHe left."\n'])
def test_a_quote_that_closes_in_another_column_swallows_no_rows(spoken, closing):
    lines = ["id\ta\tb\n", '4\t"Go, he said.\tHe said go.\n', "5\tWho?\tMice.\n", closing]
    spoken.write_text("".join(lines))
    (batch,) = read(plan(spoken))
    got = [list(row.values()) for row in batch.rows.to_pylist()]
    assert got == [[None] * 3, *(line.rstrip("\n").split("\t") for line in lines[2:])]
    assert list(batch.failures) == [0]


def test_a_quote_that_never_closes_swallows_no_rows_of_as_many_fields(spoken):
    spoken.write_text("\n".join(spoken.read_text().split("\n")[:4]) + "\n\n")
    (batch,) = read(plan(spoken))
    assert [row["id"] for row in batch.rows.to_pylist()] == ["1", None, "3"]
    assert list(batch.failures) == [1]


@pytest.mark.parametrize(
    "text",
    [
        'id,text\n1,"a\nb" c\n2,"d, e\nf ""g"" h"\n3,"i\nj, k"\n4,"l, m\nn, o, p" q\n',
        'text\n"a\nb" c\n',
    ],
)
def test_lines_in_quotes_with_other_letters_after_them_are_read_as_before(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    expected = list(csv.reader(io.StringIO(text)))[1:]
    (batch,) = read(plan(tmp_path / "a.csv"))
    assert [list(row.values()) for row in batch.rows.to_pylist()] == expected
    assert not batch.failures


@pytest.mark.parametrize("rows_per_part", [None, 2])
def test_quotes_may_be_letters(spoken, rows_per_part):
    reading = Reading(quotes=False, kinds={"votes": "number"})
    made = plan(spoken, rows_per_part, reading=reading)
    batches = read(made, reading)
    assert [list(map(str, row.values())) for row in rows(batches)] == SPOKEN[1:]
    assert not any(batch.failures for batch in batches)
    assert made.schema.field("votes").type == "int64"


def test_only_csv_has_quotes():
    with pytest.raises(ConfigError, match=r"input\.quotes applies to CSV; the input is jsonl"):
        open_source("jsonl", {}, reading=Reading(quotes=False))
    with pytest.raises(ConfigError, match=r"is text: set input\.format to csv, or remove input\.d"):
        open_source("text", {}, reading=Reading(delimiter=";"))
