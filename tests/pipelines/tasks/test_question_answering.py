"""Tasks that answer questions or decide, against the truth, one row at a time."""

from __future__ import annotations

import itertools
import json
from functools import lru_cache

import pandas as pd
import pyarrow as pa
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.task import Loaded
from pipemill.pipelines.loading.make_task import make_task
from pipemill.pipelines.tasks.question_answering import QUESTION_ANSWERING, QuestionAnswering

import pipemill
from tests.support import tiny
from tests.support.restored_cases import REFERENCES
from tests.support.row_by_row import assert_rows, assert_same, run

TOLD = json.loads((REFERENCES / "question_answering.json").read_text())


def _alone():
    """Cases of one question and one context, by model and parameters."""
    groups: dict[str, list] = {}
    for case in TOLD["cases"]:
        asked = case["inputs"]
        if isinstance(asked["question"], str) and isinstance(asked["context"], str):
            key = json.dumps([case["model"], case["parameters"]])
            groups.setdefault(key, []).append(case)
    wanted = [json.loads(key) for key, cases in groups.items() if len(cases) >= 3]
    return [(*one, groups[json.dumps(one)]) for one in wanted if one[0] in ("bert", "roberta")]


def _same_spans(batch, cases, parameters):
    """Spans of score 0 are in no order."""
    for got, case in zip(batch.results.to_pylist(), cases, strict=True):
        answers = case["answers"]
        expected = answers if isinstance(answers, list) else [answers]
        found = got.get("answers", [got])
        assert len(found) == len(expected)
        for one, truth in zip(found, expected, strict=True):
            assert one["score"] == pytest.approx(truth["score"], rel=1e-4, abs=1e-5)
            if truth["score"] > 1e-6:
                assert {**one, "score": 0} == {**truth, "score": 0}


@pytest.mark.parametrize(("model", "parameters", "cases"), _alone()[::4][:5])
def test_answers_are_those_of_4_57(model, parameters, cases):
    columns = {
        "question": [TOLD["questions"][case["inputs"]["question"]] for case in cases],
        "context": [TOLD["contexts"][case["inputs"]["context"]] for case in cases],
    }
    folder = REFERENCES / "models" / f"question_answering_{model}"
    batch = run("question-answering", folder, columns, parameters, budgets=(1, 500))
    assert not batch.failures
    _same_spans(batch, cases, parameters)
    assert len({str(case["answers"]) for case in cases}) > 2
    ranks = parameters.get("top_k", 1) != 1
    assert batch.results.column_names == (
        ["answers"] if ranks else ["answer", "score", "start", "end"]
    )


def test_question_as_a_parameter_top_k_as_a_column_and_rows_that_fail():
    folder = str(REFERENCES / "models" / "question_answering_bert")
    question = TOLD["questions"]["who"]
    contexts = [TOLD["contexts"]["short"], "", TOLD["contexts"]["story"], None, "Anna"]
    counts = [2, 1, None, 1, 3]
    batch = run(
        "question-answering",
        folder,
        {"context": contexts, "top_k": counts},
        {"question": question, "max_seq_len": 60, "doc_stride": 20},
    )
    pipemill.restore_pipelines()
    truth = transformers.pipeline("question-answering", model=folder, device="cpu")
    expected = []
    for context, count in zip(contexts, counts, strict=True):
        if not context:
            expected.append("expand")
            continue
        told = truth(
            question=question, context=context, top_k=count or 1, max_seq_len=60, doc_stride=20
        )
        expected.append({"answers": told if isinstance(told, list) else [told]})
    assert_rows(batch, expected)
    assert batch.stats["chunks"] > 5, "a long context has several windows"


@pytest.mark.parametrize("model", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("parameters", [{}, {"top_k": 4, "handle_impossible_answer": True}])
def test_many_questions_are_answered_as_one_by_one(model, parameters):
    folder = str(REFERENCES / "models" / f"question_answering_{model}")
    pipemill.restore_pipelines()
    pipeline = transformers.pipeline("question-answering", model=folder, device="cpu")
    given = {"max_seq_len": 60, "doc_stride": 20, **parameters}
    loaded = Loaded(pipeline=pipeline, columns=("question", "context"), parameters=given)
    task = make_task(QUESTION_ANSWERING, loaded)
    assert isinstance(task, QuestionAnswering)
    contexts = [*TOLD["contexts"].values(), "", "Anna", tiny.sentence(90, 1)] * 2
    questions = [*TOLD["questions"].values(), "who ?", "", tiny.sentence(60, 2)]
    pairs = zip(itertools.cycle(questions), contexts)
    rows = pa.table({"question": [q for q, _ in pairs], "context": contexts})
    many, single = (
        Stages(one, {"question": "question", "context": "context"}, TokenBudget(500))
        for one in (task, task.adapter)
    )
    expected, found = single.process(Batch(rows)), many.process(Batch(rows))
    assert found.failures == expected.failures
    assert len(found.failures) < len(contexts) - 5
    reasons = " ".join(failure.message for failure in found.failures.values())
    assert "`context` cannot be empty" in reasons
    assert "`question` cannot be empty" in reasons
    assert "leaves 0 tokens for the context" in reasons
    batch = many.process(Batch(pa.table({"question": ["who ?"] * 3, "context": [""] * 3})))
    assert len(batch.failures) == 3
    assert found.results.schema == expected.results.schema
    assert_same(found.results.to_pylist(), expected.results.to_pylist())
    assert found.stats["chunks"] == expected.stats["chunks"] > len(contexts)
    assert found.stats["tokens"] == expected.stats["tokens"]
    assert found.stats["truncated_rows"] == expected.stats["truncated_rows"] == 0


TOWNS = {"town": ["Paris", "", "B"]}
TABLES = [
    *({"mill": [f"{i}", "7", "12"], "river": ["red", "blue", "sun"], **TOWNS} for i in range(5)),
    {"bread": ["2"], "cart": ["horse"]},
]
QUERIES = [tiny.sentence(3 + i, i) for i in range(6)]


@lru_cache(maxsize=2)
def oracle(model):
    return transformers.pipeline("table-question-answering", model=model, device="cpu")


def _told(model, table, query, **parameters):
    frame = pd.DataFrame(table, dtype=object)
    answer = oracle(model)(table=frame, query=query, **parameters)
    answer["coordinates"] = [list(place) for place in answer["coordinates"]]
    return answer


def _rows(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


@pytest.mark.parametrize("shape", ["lists", "rows", "json", "json rows", "map"])
def test_table_question_answering(models, shape):
    task = "table-question-answering"
    tables = TABLES[:5] if shape == "lists" else TABLES
    expected = [_told(models[task], *pair) for pair in zip(tables, QUERIES, strict=False)]
    given = {
        "lists": tables,
        "rows": [_rows(table) for table in tables[:5]],
        "json": [json.dumps(table) for table in tables],
        "json rows": [json.dumps(_rows(table)) for table in tables],
        "map": pa.array(
            [list(table.items()) for table in tables], pa.map_(pa.string(), pa.list_(pa.string()))
        ),
    }[shape]
    expected = expected[: len(given)]
    batch = run(task, models[task], {"query": QUERIES[: len(given)], "table": given})
    assert_rows(batch, expected, 4)
    assert len({one["aggregator"] for one in expected}) > 1


def test_tables_of_numbers_and_nulls_are_texts(models):
    """pandas would make 7.0 of 7 beside a null, and "nan" of the null."""
    task = "table-question-answering"
    tables = [{"mill": [1, None, 12], "river": [0.5, 2.25, None], "town": ["Paris", None, "B"]}]
    texts = {"mill": ["1", "", "12"], "river": ["0.5", "2.25", ""], "town": ["Paris", "", "B"]}
    batch = run(task, models[task], {"table": tables}, {"query": QUERIES[2], "sequential": True})
    assert_rows(batch, [_told(models[task], texts, QUERIES[2], sequential=True)], 1)


def test_a_question_longer_than_the_models_positions_is_answered(models):
    """They begin anew in every cell, and all that are too many are the last."""
    task = "table-question-answering"
    pipeline = oracle(models[task])
    positions = pipeline.model.config.max_position_embeddings
    queries = [QUERIES[0], tiny.sentence(positions + 40, 5)]
    tables = [{name: cells[:2] for name, cells in TABLES[0].items()}] * 2
    batch = run(task, models[task], {"query": queries, "table": tables})
    assert_rows(batch, [_told(models[task], tables[0], query) for query in queries], 2)


def test_tables_that_are_none_die_alone(models):
    task = "table-question-answering"
    tables = [json.dumps(TABLES[0]), "[1, 2]", '{"mill": []}', '{"a": ["1"], "b": ["1", "2"]}', "{"]
    tables += ['{"a": ["1"], "b": ["2"], "a": ["3"]}', json.dumps(TABLES[1])]
    batch = run(task, models[task], {"table": tables, "query": [*QUERIES[:5], "a", QUERIES[1]]})
    first, last = (_told(models[task], TABLES[i], QUERIES[i]) for i in (0, 1))
    assert_rows(batch, [first, *["expand"] * 5, last])
    assert "the columns of the table have from 1 to 2 cells" in batch.failures[3].message
    assert "two columns named 'a'" in batch.failures[5].message
