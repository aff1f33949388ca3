"""Answers that are done and say nothing: counted as plain Python counts them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.compute.empty_answers import count_empty
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import tiny

REFERENCES = Path(__file__).parent.parent.parent / "references"
FLOATS = st.one_of(st.none(), st.floats(width=16), st.just(math.nan))
STRUCT = pa.struct([("score", pa.float32()), ("word", pa.string())])
SHAPES = {
    pa.float16(): FLOATS,
    pa.float32(): FLOATS,
    pa.float64(): FLOATS,
    pa.list_(pa.float32()): st.lists(FLOATS, max_size=3),
    pa.large_list(pa.float64()): st.lists(FLOATS, max_size=3),
    pa.list_(pa.float32(), 2): st.lists(FLOATS, min_size=2, max_size=2),
    pa.list_(pa.list_(pa.float32())): st.lists(st.lists(FLOATS, max_size=2), max_size=2),
    pa.list_(pa.list_(pa.float32(), 1)): st.lists(st.tuples(FLOATS).map(list), max_size=2),
    STRUCT: st.fixed_dictionaries({"score": FLOATS, "word": st.just("a")}),
    pa.list_(STRUCT): st.lists(
        st.none() | st.fixed_dictionaries({"score": FLOATS, "word": st.none()}), max_size=2
    ),
    pa.string(): st.just("nan"),
    pa.int64(): st.integers(0, 9),
}


def holds(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(holds, value.values()))
    if isinstance(value, list):
        return any(map(holds, value))
    return isinstance(value, float) and not math.isfinite(value)


@pytest.mark.parametrize("kind", SHAPES, ids=str)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_counts_are_those_of_each_row(kind, data):
    rows = data.draw(st.lists(st.none() | SHAPES[kind], max_size=6))
    live = np.flatnonzero([data.draw(st.booleans()) for _ in rows])
    array = pa.array(rows, kind)
    chunks = pa.chunked_array([array, array])
    for column in (array, pa.concat_arrays([array, array])[len(rows) :], chunks[: len(rows)]):
        table = pa.table({"first": column, "n": range(len(rows))})
        wanted = {
            "nan_rows": sum(holds(rows[i]) for i in live),
            "null_answers": sum(rows[i] is None for i in live),
        }
        assert count_empty(table, live) == {k: n for k, n in wanted.items() if n}


def test_a_question_without_any_answer_has_none():
    answers = pa.array([[], None, ["a"]], pa.list_(pa.string()))
    assert count_empty(pa.table({"answers": answers}), np.arange(3)) == {"null_answers": 2}
    assert count_empty(pa.table({"entities": answers}), np.arange(3)) == {"null_answers": 1}


@pytest.fixture
def scores(tmp_path):
    """A model whose scores are NaN for texts with one word."""
    import torch
    import transformers

    folder = tiny.save(tmp_path / "model", "ForSequenceClassification")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    token = tiny.tokenizer().convert_tokens_to_ids("stone")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[token] = math.nan
    model.save_pretrained(folder)
    texts = ["the mill", "a stone", None, "stone", "bread"] * 4
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    return {
        "task": "text-classification",
        "model": str(folder),
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 5},
        "actors": {"placement": "local"},
    }


def test_rows_of_nan_are_done_and_said(scores, tmp_path, capsys):
    report = pipemill.run(scores)
    assert (report.done, report.dead, report.nan_rows, report.null_answers) == (16, 4, 8, 0)
    line = "8 rows with NaN or infinite numbers"
    assert f"not finite    {line}" in str(report)
    assert line in report._repr_html_()
    assert json.loads(report.to_json())["nan_rows"] == 8
    min((tmp_path / "out").glob("part-*")).unlink()
    resumed = pipemill.run(scores)
    assert (resumed.nan_rows, resumed.added["rows"]) == (8, 5)
    assert main(["report", str(tmp_path / "out")]) == 0
    assert line in (tmp_path / "out/_pipemill/report.html").read_text()


def test_rows_that_a_retry_answers_are_counted_too(scores):
    texts = [("the stone " * 90) if i % 4 else "the mill" for i in range(8)]
    pq.write_table(pa.table({"text": texts, "text_pair": texts}), scores["input"])
    columns = {"columns": {"text": "text", "text_pair": "text_pair"}}
    scores["output"]["max_errors"] = None
    first = pipemill.run(scores, **columns)
    assert (first.dead, first.nan_rows) == (6, 0)
    retried = pipemill.retry({**scores, "parameters": {"truncation": True}}, **columns)
    assert (retried.dead, retried.nan_rows) == (0, 6)


@pytest.mark.parametrize("top_k", [1, 3])
def test_questions_without_a_span_are_said(tmp_path, top_k):
    contexts = ["Anna was at the mill .", " ", "the mill"]
    table = pa.table({"question": ["Who?"] * 3, "context": contexts})
    pq.write_table(table, tmp_path / "in.parquet")
    report = pipemill.run(
        task="question-answering",
        model=str(REFERENCES / "models/question_answering_japanese"),
        input=str(tmp_path / "in.parquet"),
        output=str(tmp_path / "out"),
        parameters={"top_k": top_k},
        actors={"placement": "local"},
    )
    assert (report.done, report.null_answers) == (3, 1)
    answers = pq.read_table(next((tmp_path / "out").glob("part-*"))).column(2).to_pylist()
    assert [not answer for answer in answers] == [False, True, False]
    line = "1 row done with a null answer"
    assert f"no answer     {line}" in str(report)
    assert line in report._repr_html_()
