"""Jobs of several tasks over the same rows, compared with plain transformers and single jobs."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.output.part_file import encode_part, read_footer
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import light

TEXTS = ["anna is in berlin", "rain", "the mill of the baker is old", "", "snow and wind", None]
LANGUAGES = ["en", "de", "en", "en", "en", "de"]


@pytest.fixture
def job(tmp_path, models):
    rows = {"body": TEXTS * 5, "lang": LANGUAGES * 5}
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    return {
        "tasks": [
            {
                "task": "text-classification",
                "model": models["text-classification"],
                "name": "mood",
                "where": "lang == 'en'",
            },
            {
                "task": "zero-shot-classification",
                "model": models["zero-shot-classification"],
                "where": "mood_label != 'a' and mood_score > 0.3",
                "parameters": {"candidate_labels": ["art", "sport"]},
            },
            {"task": "feature-extraction", "model": {"path": models["feature-extraction"]}},
        ],
        "input": {"path": str(tmp_path / "in.parquet"), "columns": {"text": "body"}},
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 7, "max_errors": None},
        "actors": {"placement": "local"},
    }


def table(out):
    return ds.dataset(out).to_table()


def alone(job, place, rows, folder):
    """The answers of one of the tasks to some of the rows, as a separate job."""
    folder.mkdir()
    pq.write_table(rows, folder / "in.parquet")
    entry = {key: job["tasks"][place][key] for key in ("task", "model")}
    entry["parameters"] = job["tasks"][place].get("parameters", {})
    return pipemill.run(
        **entry,
        input={"path": str(folder / "in.parquet"), "columns": {"text": "body"}},
        output={"path": str(folder / "out"), "max_errors": None},
        actors={"placement": "local"},
    ).to_arrow()


def test_answers_are_those_of_each_task_alone_and_of_transformers(job, tmp_path, models):
    job["input"]["columns"] = {}
    for entry in job["tasks"]:
        entry["columns"] = {"text": "body"}
    report = pipemill.run(job)
    found = table(tmp_path / "out")
    # The null is German: only the last task, which has no condition, reads it.
    assert (report.rows, report.done, report.dead) == (30, 25, 5)
    assert {one["stage"] for one in report.dead_reasons} == {"expand of feature-extraction"}
    english = found.filter(pc.field("lang") == "en")
    assert report.tasks == {
        "mood": 20,
        "zero-shot-classification": len(found.drop_null().filter(pc.field("mood_score") > 0.3)),
        "feature-extraction": 30,
    }
    classify = transformers.pipeline("text-classification", models["text-classification"])
    for row in english.to_pylist():
        answer = classify(row["body"])[0]
        assert row["mood_label"] == answer["label"]
        assert row["mood_score"] == pytest.approx(answer["score"], abs=1e-5)
    german = found.filter(pc.field("lang") == "de")
    assert german["mood_label"].null_count == len(german) == 5
    passed = (pc.field("mood_label") != "a") & (pc.field("mood_score") > 0.3)
    some = found.filter(passed)
    assert 0 < len(some) < len(english)
    assert found.filter(pc.field("labels").is_valid()).equals(some)
    own = alone(job, 1, some.select(["body"]), tmp_path / "zero")
    assert some["labels"].equals(own["labels"])
    vectors = alone(job, 2, found.select(["body"]), tmp_path / "vectors")
    got, wanted = (np.array(one["embedding"].to_pylist()) for one in (found, vectors))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_read_once_resumed_verified_and_never_mixed(job, tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(job))
    assert main(["run", str(config)]) == 0
    first = table(tmp_path / "out")
    for part in sorted((tmp_path / "out").glob("part-*"))[::2]:
        part.unlink()
    report = pipemill.run(str(config))
    assert report.added["splits"] == 3
    assert table(tmp_path / "out").equals(first)
    found = pipemill.verify(str(tmp_path / "out"), sample=30)
    assert (found.findings, found.sample.rows) == ([], 25)
    assert "mood + zero-shot-classification + feature" in str(
        pipemill.status(job["output"]["path"])
    )
    capsys.readouterr()
    job["tasks"][1]["where"] = "mood_score > 0.4"
    assert pipemill_says(job, "run", capsys, tmp_path) == 2
    assert "zero-shot-classification.where (\"mood_label != 'a'" in capsys.readouterr().err


def pipemill_says(job, verb, capsys, tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text(json.dumps(job))
    return main([verb, str(config)])


def test_verify_sees_an_answer_of_another_row(job, tmp_path):
    job["tasks"] = [job["tasks"][0], {**job["tasks"][2], "name": "vector"}]
    pipemill.run(job)
    part = min((tmp_path / "out").glob("part-*"))
    old = pq.read_table(part)
    vectors = old["vector_embedding"].take(pa.array([1, 0, *range(2, len(old))]))
    swapped = old.set_column(
        old.column_names.index("vector_embedding"), "vector_embedding", vectors
    )
    part.write_bytes(encode_part(swapped, read_footer(part)))
    findings = pipemill.verify(str(tmp_path / "out"), sample=30).findings
    assert len(findings) == 2
    assert all("it holds {'embedding': [" in one and "but again it is" in one for one in findings)


def test_dead_letters_of_any_task_are_retried_for_all(tmp_path, monkeypatch):
    light.install(monkeypatch)
    texts = ["bad1" if i % 9 == 0 else f"text {i}" for i in range(40)]
    wanted = light.job(tmp_path, texts)
    entry = {"task": wanted.pop("task"), "model": wanted.pop("model")}
    wanted["tasks"] = [
        {**entry, "name": "one", "parameters": {"healed": 1}},
        {**entry, "name": "two", "where": "one_length > 3", "parameters": {"healed": 1}},
    ]
    failing = {**wanted, "tasks": [wanted["tasks"][0], {**wanted["tasks"][1], "parameters": {}}]}
    report = pipemill.run(failing)
    assert (report.done, report.dead) == (35, 5)
    (reason,) = report.dead_reasons
    assert (reason["stage"], reason["message"]) == ("regroup of two", "bad1 is not healed")
    assert pipemill.retry(failing).added == {"rows": 5, "done": 0, "dead": 5, "splits": 4}
    other = {**wanted, "tasks": [wanted["tasks"][0], {**wanted["tasks"][1], "where": "n > 1"}]}
    with pytest.raises(pipemill.ConfigError, match=r"two.where \('one_length > 3' then"):
        pipemill.retry(other)
    assert pipemill.retry(wanted).added == {"rows": 5, "done": 5, "dead": 0, "splits": 4}
    found = table(tmp_path / "out")
    assert found["two_again"].to_pylist() == [text.upper() for text in texts]
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    (settings,) = record["retries"].values()
    assert settings["two.parameters"] == {"healed": 1}
    assert settings["one.parameters"] == {"healed": 1}


@pytest.mark.parametrize("second", [None, "mood_label is not None"])
def test_a_task_without_rows_is_counted_and_the_others_are_measured(job, second, tmp_path):
    first, _, last = job["tasks"]
    job["tasks"] = [{**first, "where": "lang == 'fr'"}, {**last, "where": second}]
    report = pipemill.run(job)
    rows = 0 if second else len(TEXTS) * 5
    assert report.tasks == {"mood": 0, "feature-extraction": rows}
    assert (report.device_busy is None) == (rows == 0)


def test_on_ray_as_in_this_process(job, tmp_path, ray_session):
    pipemill.run(job)
    job["output"]["path"] = str(tmp_path / "ray")
    job["actors"] = {"placement": "fused", "max": 1, "num_cpus": 1}
    report = pipemill.run(job)
    assert report.dead == 5
    assert table(tmp_path / "ray").equals(table(tmp_path / "out"))


def test_a_plan_says_what_each_task_gets(job, tmp_path):
    plan = pipemill.plan(job, seconds=0.1)
    assert [task.name for task in plan.tasks] == [
        "mood", "zero-shot-classification", "feature-extraction",
    ]  # fmt: skip
    assert plan.tasks[0].share == pytest.approx(20 / 30)
    assert plan.tasks[1].share < plan.tasks[0].share < plan.tasks[2].share == 1
    each = sum(task.share / task.rows_per_second for task in plan.tasks)
    assert plan.rows_per_second == pytest.approx(1 / each)
    assert "66.7% of the rows" in str(plan)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"where": "lang = 'en'"}, "'tasks.1.where' in {file}: \"lang = 'en'\" is not a condition"),
        ({"where": "tongue == 'en'"}, "where of b: \"tongue == 'en'\" names 'tongue', which is no"),
        ({"where": "lang > 3"}, "where of b: 'lang > 3' can't be tested: lang is string"),
        ({"where": "a_lable == 'x'"}, "where of b: \"a_lable == 'x'\" names 'a_lable'"),
        ({"name": "a"}, "two of them are called a: give each a name"),
        ({"name": "a b"}, "must be a name of letters, digits and _"),
        ({"wher": "x"}, "unknown key 'tasks.1.wher' in {file}; did you mean 'where'?"),
        ({"task": "no-such"}, "no-such"),
        ({"parameters": {"top": 3}}, "text-classification has no parameter 'top'"),
        ({"parameters": {"dtype": "float16"}}, "no parameter 'dtype'; did you mean 'model.dtype'?"),
        ({"top_k": 3}, "'tasks.1.top_k' in {file}; did you mean 'parameters.top_k'?"),
        ({"model": "/nowhere"}, "no model at /nowhere"),
    ],
)
def test_what_is_wrong_is_said(job, tmp_path, capsys, change, said):
    first = job["tasks"][0]
    job["tasks"] = [{**first, "name": "a"}, {**first, "name": "b", **change}]
    assert pipemill_says(job, "run", capsys, tmp_path) == 2
    assert said.format(file=tmp_path / "other.yaml") in capsys.readouterr().err


def test_an_unknown_column_of_a_condition_is_said_before_a_model_loads(job, tmp_path, capsys):
    first = {**job["tasks"][0], "name": "a"}
    job["tasks"] = [first, {**first, "name": "b", "where": "a_label == 'x' and label == 'x'"}]
    assert pipemill_says(job, "run", capsys, tmp_path) == 2
    said = capsys.readouterr().err
    assert "names 'label', which is no column here: " in said
    assert "and those of earlier tasks, which begin with a_" in said
    assert "loading the model" not in said


def test_one_task_and_several_are_not_both_given(job, tmp_path, capsys):
    job["tasks"][0].pop("name")
    assert pipemill_says({**job, "task": "fill-mask"}, "run", capsys, tmp_path) == 2
    assert "task and tasks are both given" in capsys.readouterr().err
    job["actors"] = {"placement": "staged"}
    assert pipemill_says(job, "run", capsys, tmp_path) == 2
    assert "several tasks run in one actor: actors.placement can't be" in capsys.readouterr().err
    assert pipemill_says(job, "tune", capsys, tmp_path) == 2
    assert "tune measures one task, and the job has several (" in capsys.readouterr().err
    job["tasks"] = job["tasks"][:1] * 1 + [{**job["tasks"][0], "name": "b"}]
    job["tasks"].append({**job["tasks"][0], "task": "sentiment-analysis"})
    job["actors"] = {"placement": "local"}
    assert pipemill_says(job, "run", capsys, tmp_path) == 2
    assert "both add the column 'label': give one of them a name" in capsys.readouterr().err
