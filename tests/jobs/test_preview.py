"""A few rows in this process: the same as a run's, and nothing is written."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from pipemill.actors.batch import Failure
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.jobs.preview import Preview, preview

import pipemill
from tests.support import tiny

TEXTS = tiny.texts(12, seed=21, longest=20)


@pytest.fixture
def data(tmp_path):
    texts = [*TEXTS]
    texts[1] = None
    pq.write_table(pa.table({"id": range(12), "body": texts}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def job(models, data, **sections):
    task = "text-classification"
    wanted = {"task": task, "model": models[task], "input": str(data), **sections}
    wanted |= {"output": {"path": str(data.parent / "out"), "on_error": "null"}}
    return build_job(wanted, [], {"text": "body"}, {})


def test_it_shows_what_a_run_writes(models, data):
    wanted = job(models, data, actors={"placement": "local"})
    found = preview(wanted, rows=5)
    assert not (data.parent / "out").exists()
    pipemill.run(wanted)
    written = ds.dataset(data.parent / "out").to_table().slice(0, 5)
    assert found.table.drop_columns("score").equals(written.drop_columns("score"))
    scores = [table["score"].drop_null().to_pylist() for table in (found.table, written)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert len(set(scores[0])) == 4
    assert list(found.failures) == [1]


def test_rows_of_files_without_the_column_say_so_as_a_run_does(models, tmp_path):
    for name, columns in (("a", ["id", "body"]), ("b", ["id", "other"]), ("c", ["n", "id"])):
        pq.write_table(pa.table(dict.fromkeys(columns, TEXTS[:2])), tmp_path / f"{name}.parquet")
    wanted = job(models, tmp_path / "*.parquet", actors={"placement": "local"})
    found = preview(wanted, rows=6)
    whys = [
        f"there is no column 'body' in {tmp_path}/{name}.parquet (columns: {has})"
        for name, has in (("b", "id, other"), ("c", "n, id"))
    ]
    assert [found.failures[row].message for row in range(2, 6)] == ["; ".join(whys)] * 4
    for name, why in zip("bc", whys, strict=True):
        only = job(models, tmp_path / f"[a{name}].parquet")
        assert {failure.message for failure in preview(only, rows=6).failures.values()} == {why}
    pq.write_table(pa.table({"body": [None, "x"]}), tmp_path / "a.parquet")
    failures = preview(wanted, rows=6).failures  # a null is in a file that has the column, too
    assert {failure.message for failure in failures.values()} == {"column 'body' is null"}


def test_the_verb_shows_rows_and_failures_and_ends_in_json(models, data, tmp_path, capsys):
    words = ["--task", "text-classification", "--model", models["text-classification"],
             "--input", str(data), "--output", str(tmp_path / "out")]  # fmt: skip
    assert main(["preview", *words, "--column", "text=body", "-n", "3"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert (told["rows"], told["done"], told["dead"]) == (3, 2, 1)
    assert list(told["columns"]) == ["id", "body", "label", "score"]
    assert "row 2\n  id          2\n" in err
    assert "dead: expand: ValueError: column 'body' is null" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet"]


class Shout(transformers.TextClassificationPipeline):
    """Answers that only a sample shows."""

    def postprocess(self, outputs, **parameters):
        return {"loud": len(super().postprocess(outputs, **parameters)["label"]), "by": "Shout"}


def test_columns_that_only_a_sample_shows(models, data):
    own = {"pipeline_class": "tests.jobs.test_preview:Shout"}
    found = preview(job(models, data, **own), rows=4)
    assert found.table.schema.names[:2] == ["id", "body"]
    assert "Shout" in str(found)
    assert list(found.failures) == [1]


def test_a_model_that_does_not_load_says_why(models, data):
    own = {"pipeline_class": "tests.support.own_pipelines:Unloadable"}
    wanted = build_job(job(models, data, **own), [], {}, {})
    with pytest.raises(pipemill.ConfigError, match="loading failed.*no such licence"):
        preview(wanted, rows=1)


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("verb", ["preview", "plan", "tune"])
def test_no_look_needs_an_output(models, data, tmp_path, capsys, monkeypatch, verb, from_file):
    """And none is made: only the plot of `tune`, in the folder that the command is run in."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    model = models["text-classification"]
    words = ["--task", "text-classification", "--model", model, "--input", str(data)]
    if from_file:
        config = f"task: text-classification\nmodel: {model}\ninput: {data}\n"
        (tmp_path / "job.yaml").write_text(config)
        words = [str(tmp_path / "job.yaml")]
    seconds = [] if verb == "preview" else ["--seconds", "0.01"]
    assert main([verb, *words, "--column", "text=body", "--rows", "4", *seconds]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["rows"] >= 3
    assert [path.name for path in here.iterdir()] == (["tune.png"] if verb == "tune" else [])


def test_rows_that_all_fail_are_no_success(models, tmp_path, capsys):
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), tmp_path / "in.parquet")
    words = ["--task", "text-classification", "--model", models["text-classification"]]
    assert main(["preview", *words, "--input", str(tmp_path / "in.parquet")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["dead"] == 2
    assert "column 'text' is null" in err


def test_long_names_stand_apart_from_their_values():
    def lines(row):
        table = pa.Table.from_pylist([row])
        return str(Preview(table, {})).split("\n")

    assert lines({"text": "a b", "translation_text": "c d", "n" * 60: 1})[1:] == [
        f"  {'text':<32}a b",
        f"  {'translation_text':<32}c d",
        f"  {'n' * 60}  1",
    ]
    assert lines({"text": "a", "label": "b"})[1:] == [f"  {'text':<12}a", f"  {'label':<12}b"]


def test_in_python_it_takes_what_run_takes_and_no_output(models, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = pipemill.preview(
        task="text-classification",
        model=models["text-classification"],
        input=data,
        columns={"text": "body"},
        rows=3,
    )
    assert found.table["body"].to_pylist() == [TEXTS[0], None, TEXTS[2]]
    assert found.table["label"].to_pylist().index(None) == 1
    assert (found.rows, found.done, found.dead, found.all_failed) == (3, 2, 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
    assert pa.table(found).equals(found.to_arrow())
    assert found.to_pandas()["id"].tolist() == found.table["id"].to_pylist()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.table = None
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert "expand: ValueError: column &#x27;body&#x27; is null" in page


@pytest.mark.parametrize("rows", [0, -1, True, "5"])
def test_a_number_of_rows_that_is_not_one_is_said_at_once(rows):
    with pytest.raises(pipemill.ConfigError, match="rows must be a whole number of at least 1"):
        pipemill.preview({"task": "no such"}, rows=rows)


def test_torch_and_transformers_are_left_as_the_program_set_them(models, data, tmp_path):
    logging = transformers.utils.logging
    before = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(3)
    torch.backends.cuda.enable_cudnn_sdp(True)
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    job = {"task": "text-classification", "model": models["text-classification"]}
    job |= {"input": str(data), "columns": {"text": "body"}}
    out, ran = str(tmp_path / "kept"), {"actors": {"placement": "local"}}
    try:
        for compute in (
            lambda: pipemill.preview(**job),
            lambda: pipemill.plan(**job, rows=4, seconds=0.01),
            lambda: pipemill.tune(**job, rows=2, seconds=0.01, plot=str(tmp_path / "plot.png")),
            lambda: pipemill.run(**job, **ran, output=out),
            lambda: pipemill.retry(**job, **ran, output=out),
            lambda: pipemill.verify(out, sample=2),
        ):
            compute()
            assert (torch.get_num_threads(), logging.get_verbosity()) == (3, logging.INFO)
            assert logging.is_progress_bar_enabled()
            assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.set_num_threads(before[0])
        logging.set_verbosity(before[1])


def test_in_a_notebook_texts_are_text():
    evil = "<script>alert(1)</script>"
    table = pa.table({evil: [evil], "when": pa.array([2**62], pa.timestamp("s"))})
    found = Preview(table, {0: Failure("forward", "ValueError", evil)}, (evil,))
    assert "<script" not in found._repr_html_()
    assert found._repr_html_().count("&lt;script&gt;") == 4
    assert "(timestamp[s])" in str(found), "Python has no such time"
