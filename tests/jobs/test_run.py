"""Whole jobs in this process: what comes out, what a second run does, what errors say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.output.layout import STATE
from pipemill.jobs.cli.app import main
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import tiny

TEXTS = tiny.texts(120, seed=11, longest=20)
ROWS = pa.table({"id": range(120), "body": TEXTS, "label": [f"old {i}" for i in range(120)]})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(ROWS.slice(0, 70), folder / "a.parquet")
    pq.write_table(ROWS.slice(70), folder / "b.parquet")
    return folder


def job(models, data, path, task="text-classification", *, output=None, **more):
    return {
        "task": task,
        "model": models[task],
        "input": str(data),
        "output": {"path": str(path), "rows_per_part": 25, **(output or {})},
        "actors": {"placement": "local"},
        "columns": {"text": "body"},
        **more,
    }


def parts(output) -> list[Path]:
    return sorted(Path(output).glob("part-*.parquet"))


def test_the_output_is_a_plain_parquet_dataset_in_input_order(models, data, tmp_path):
    report = pipemill.run(**job(models, data, tmp_path / "out"))
    assert (report.rows, report.done, report.dead) == (120, 120, 0)
    assert report.added == {"rows": 120, "done": 120, "dead": 0, "splits": 5}
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["id"].to_pylist() == list(range(120))
    assert table["body"].to_pylist() == TEXTS
    # A result column keeps its name; the input's column of that name is kept beside it.
    assert table.schema.names == ["id", "body", "input_label", "label", "score"]
    assert table["input_label"].to_pylist()[7] == "old 7"
    schemas = [pq.read_schema(part) for part in parts(tmp_path / "out")]
    assert len(schemas) == 6 - 1
    assert all(schema.equals(schemas[0]) for schema in schemas)
    footer = json.loads(pq.read_metadata(parts(tmp_path / "out")[0]).metadata[b"pipemill"])
    counts = {"rows", "dead", "dead_rows", "truncated_rows", "lost_tokens"}
    counts |= {"tokens", "padded_tokens"}
    assert footer.keys() == {"job", "fingerprint", "split", "digest", *counts}
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert record["fingerprint"] == footer["fingerprint"]
    assert {"pipemill", "transformers", "torch", "ray"} <= record["versions"].keys()


def test_a_second_run_has_nothing_to_do_and_says_the_same(models, data, tmp_path):
    first = pipemill.run(**job(models, data, tmp_path / "out"))
    before = {part: part.stat().st_mtime_ns for part in parts(tmp_path / "out")}
    second = pipemill.run(**job(models, data, tmp_path / "out"))
    assert (second.rows, second.done, second.dead) == (first.rows, first.done, first.dead)
    assert second.added == {"rows": 0, "done": 0, "dead": 0, "splits": 0}
    assert {part: part.stat().st_mtime_ns for part in parts(tmp_path / "out")} == before


def test_only_what_is_missing_is_done_again(models, data, tmp_path):
    pipemill.run(**job(models, data, tmp_path / "out"))
    whole = ds.dataset(tmp_path / "out").to_table()
    parts(tmp_path / "out")[1].unlink()
    parts(tmp_path / "out")[3].unlink()
    report = pipemill.run(**job(models, data, tmp_path / "out"))
    assert (report.rows, report.added["splits"]) == (120, 2)
    assert ds.dataset(tmp_path / "out").to_table().equals(whole)


def test_new_input_files_are_picked_up_and_a_changed_one_is_refused(models, data, tmp_path):
    pipemill.run(**job(models, data, tmp_path / "out"))
    pq.write_table(ROWS.slice(0, 10), data / "c.parquet")
    report = pipemill.run(**job(models, data, tmp_path / "out"))
    assert (report.rows, report.added["rows"]) == (130, 10)
    pq.write_table(ROWS.slice(0, 11), data / "a.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"a\.parquet has changed"):
        pipemill.run(**job(models, data, tmp_path / "out"))


def test_another_job_may_not_use_the_same_output(models, data, tmp_path):
    pipemill.run(**job(models, data, tmp_path / "out"))
    with pytest.raises(pipemill.ConfigError, match=r"parameters \(\{\} then, .*top_k.*: 2"):
        pipemill.run(**job(models, data, tmp_path / "out", parameters={"top_k": 2}))
    other = job(models, data, tmp_path / "out")
    other["model"] = models["zero-shot-classification"]
    with pytest.raises(pipemill.ConfigError, match="model .*then.*now"):
        pipemill.run(**other)


def test_bad_rows_become_dead_letters_with_a_reason(models, tmp_path):
    lines = [json.dumps({"id": i, "body": text}) for i, text in enumerate(TEXTS)]
    lines[5], lines[50] = "{", json.dumps({"id": 50, "body": None})
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    report = pipemill.run(**job(models, tmp_path / "in.jsonl", tmp_path / "out"))
    assert (report.rows, report.done, report.dead) == (120, 118, 2)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["id"].to_pylist() == [i for i in range(120) if i not in (5, 50)]
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert [(d["split"], d["row"], d["stage"], d["id"]) for d in letters] == [
        (0, 5, "read", None),
        (2, 0, "expand", 50),
    ]
    assert letters[0]["error"] == "JSONDecodeError"
    assert "null" in letters[1]["message"]
    assert {d["attempts"] for d in letters} == {1}


def test_rows_that_fail_can_be_kept_as_nulls_or_end_the_run(models, tmp_path):
    rows = ROWS.set_column(1, "body", pa.array([None, *TEXTS[1:]]))
    pq.write_table(rows, tmp_path / "in.parquet")
    nulls = job(models, tmp_path / "in.parquet", tmp_path / "nulls", output={"on_error": "null"})
    assert pipemill.run(**nulls).dead == 1
    table = ds.dataset(tmp_path / "nulls").to_table()
    assert (table.num_rows, table["label"][0].as_py()) == (120, None)
    stop = job(models, tmp_path / "in.parquet", tmp_path / "stop", output={"on_error": "raise"})
    with pytest.raises(pipemill.RunError, match=r"row 0 of .*in\.parquet failed.*'body' is null"):
        pipemill.run(**stop)


def test_a_job_that_is_simply_wrong_stops_early(models, tmp_path):
    rows = pa.table({"body": [None if i % 2 else "a" for i in range(4000)]})
    pq.write_table(rows, tmp_path / "in.parquet")
    many = job(models, tmp_path / "in.parquet", tmp_path / "a", output={"rows_per_part": 500})
    with pytest.raises(pipemill.RunError, match=r"500 of 1,000 rows failed.*max_errors") as error:
        pipemill.run(**many)
    assert "'body' is null" in str(error.value)
    few = job(models, tmp_path / "in.parquet", tmp_path / "b", output={"max_errors": 3})
    with pytest.raises(pipemill.RunError, match="12 of 25 rows failed"):
        pipemill.run(**few)
    allowed = job(models, tmp_path / "in.parquet", tmp_path / "c", output={"max_errors": None})
    assert pipemill.run(**allowed).dead == 2000


def test_a_measured_budget_is_kept_for_the_next_run(models, data, tmp_path, monkeypatch):
    seen = []
    stages = LoadTask.stages

    def watched(self, loaded):
        made = stages(self, loaded)
        seen.append(made.budget.candidates)
        return made

    monkeypatch.setattr(LoadTask, "stages", watched)
    monkeypatch.setattr("pipemill.pipelines.loading.task_loader._ON_CPU", (40, 20))
    wanted = job(models, data, tmp_path / "out")
    first = pipemill.run(**wanted)
    assert first.max_tokens in (40, 20)
    parts(tmp_path / "out")[2].unlink()
    again = pipemill.run(**wanted)
    assert (again.added["splits"], again.max_tokens) == (1, first.max_tokens)
    parts(tmp_path / "out")[2].unlink()
    pipemill.run(**{**wanted, "batching": {"max_tokens": 33}})
    assert seen == [(40, 20), (first.max_tokens,), (33,)]


def test_a_share_that_the_user_gave_holds_for_a_small_input_too(models, tmp_path):
    rows = pa.table({"body": [None if i % 4 == 0 else "a" for i in range(100)]})
    pq.write_table(rows, tmp_path / "in.parquet")
    assert pipemill.run(**job(models, tmp_path / "in.parquet", tmp_path / "a")).dead == 25
    own = job(models, tmp_path / "in.parquet", tmp_path / "b", output={"max_errors": 0.2})
    with pytest.raises(pipemill.RunError, match=r"25 of 100 rows failed.*\(0\.2\) allows"):
        pipemill.run(**own)
    more = job(models, tmp_path / "in.parquet", tmp_path / "c", output={"max_errors": 0.3})
    assert pipemill.run(**more).dead == 25


def test_under_a_limit_a_changed_file_and_another_input_are_noticed(models, data, tmp_path):
    def limited(path):
        return job(models, data, tmp_path / "out") | {"input": {"path": str(path), "limit": 60}}

    assert pipemill.run(**limited(data / "a.parquet")).rows == 60
    with pytest.raises(pipemill.ConfigError, match=r"a\.parquet, which .* is not in the input"):
        pipemill.run(**limited(data / "b.parquet"))
    pq.write_table(ROWS.slice(0, 71), data / "a.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"a\.parquet has changed"):
        pipemill.run(**limited(data / "a.parquet"))


def test_new_files_without_the_planned_columns_are_refused_and_not_planned(models, data, tmp_path):
    pipemill.run(**job(models, data, tmp_path / "out"))
    pq.write_table(pa.table({"other": ["x"]}), data / "c.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"c\.parquet.* lack the columns body that"):
        pipemill.run(**job(models, data, tmp_path / "out"))
    (data / "c.parquet").unlink()
    assert pipemill.run(**job(models, data, tmp_path / "out")).rows == 120


def test_a_job_that_has_done_nothing_yet_may_be_changed(models, data, tmp_path):
    broken = {"pipeline_class": "tests.support.own_pipelines:Unloadable"}
    with pytest.raises(pipemill.ConfigError, match="no such licence"):
        pipemill.run(**(job(models, data, tmp_path / "out") | broken))
    changed = job(models, data, tmp_path / "out", output={"rows_per_part": 60})
    assert pipemill.run(**changed).added["splits"] == 3


def test_keep_limit_and_columns_named_like_the_inputs(models, tmp_path):
    pq.write_table(ROWS.rename_columns(["id", "text", "label"]), tmp_path / "in.parquet")
    wanted = job(models, tmp_path / "in.parquet", tmp_path / "out", output={"keep": ["id"]})
    wanted |= {"columns": {}, "input": {"path": str(tmp_path / "in.parquet"), "limit": 33}}
    report = pipemill.run(**wanted)
    table = ds.dataset(tmp_path / "out").to_table()
    assert (report.rows, table.schema.names) == (33, ["id", "label", "score"])
    assert pipemill.run(**wanted).rows == 33


def test_memory_and_other_fsspec_urls(models):
    import fsspec

    memory = fsspec.filesystem("memory")
    with memory.open("/in/a.parquet", "wb") as file:
        pq.write_table(ROWS, file)
    wanted = job(models, "memory://in/*.parquet", "memory://out")
    wanted["actors"] = {}
    assert pipemill.run(**wanted).done == 120
    assert pipemill.run(**wanted).added["rows"] == 0
    assert len(memory.glob("/out/part-*.parquet")) == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--task": "text-clasification"}, "did you mean 'text-classification'"),
        ({"--model": "/no/model"}, "no model at /no/model: there is no folder"),
        ({"--model": "no-such-model"}, "no model 'no-such-model': there is no such folder in"),
        ({"--model": "EMPTY"}, "config.json is not there"),
        ({"--input": "/no/rows-*.parquet"}, "no input at /no/rows-*.parquet"),
        ({"--column": "text=boddy"}, "no column 'boddy' in the input (input.columns.text); did"),
        ({"--column": "txt=body"}, "reads no column 'txt' (input.columns); did you mean 'text'"),
        ({"--column": "text=id"}, "column 'id' is int64, but text-classification reads text"),
        ({"--param": "topk=2"}, "no parameter 'topk'; did you mean 'top_k'"),
        (
            {"--param": "function_to_apply=softmaxx"},
            "function_to_apply is one of null, softmax, sig",
        ),
        ({"--param": "top_k=many"}, "top_k is a whole number or null, not 'many'"),
        ({"--param": "stride=-1"}, "stride is a whole number of at least 0, not -1"),
        ({"--param": "window_pooling=median"}, "window_pooling is one of mean, max, not 'median'"),
        (
            {"--param": "max_length=2020-01-01"},
            "max_length is a whole number of at least 1 or null, not datetime",
        ),
        ({"--set": "output.rows_per_prt=3"}, "unknown key 'output.rows_per_prt'"),
        ({"--set": "output.keep=[boddy]"}, "output.keep names 'boddy'"),
        ({"--output": "DATA"}, "is not empty and was not written by pipemill"),
        ({"--output": "/proc/none/out"}, "can't write to the output /proc/none/out"),
    ],
)
def test_a_wrong_command_is_one_message_and_status_2(
    models, data, tmp_path, capsys, flags, message
):
    (tmp_path / "empty").mkdir()
    flags = {
        "--task": "text-classification",
        "--model": models["text-classification"],
        "--input": str(data),
        "--output": str(tmp_path / "out"),
        "--column": "text=body",
        **flags,
    }
    places = {"EMPTY": str(tmp_path / "empty"), "DATA": str(data)}
    words = [word for pair in flags.items() for word in (pair[0], places.get(pair[1], pair[1]))]
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("out/*"))


def test_without_a_column_the_message_lists_those_there_are(models, data, tmp_path, capsys):
    words = ["--task", "ner", "--model", models["token-classification"], "--input", str(data)]
    assert main(["run", *words, "--output", str(tmp_path / "out")]) == 2
    assert "columns: id, body, label. Name one with --column text=COLUMN" in capsys.readouterr().err


def test_zero_shot_needs_labels_from_a_parameter_or_a_column(models, data, tmp_path):
    wanted = job(models, data, tmp_path / "out", "zero-shot-classification")
    with pytest.raises(pipemill.ConfigError, match=r"or set parameters\.candidate_labels"):
        pipemill.run(**wanted)


def test_a_model_that_does_not_load_ends_the_run_with_its_reason(models, data, tmp_path):
    wanted = job(models, data, tmp_path / "out")
    wanted |= {"pipeline_class": "tests.support.own_pipelines:Unloadable"}
    with pytest.raises(pipemill.ConfigError, match="no such licence"):
        pipemill.run(**wanted)


def test_a_full_disk_ends_the_run_and_names_the_place(models, data, tmp_path, monkeypatch):
    import errno

    from pipemill.actors.storage import store

    write = store.write_atomic

    def full(filesystem, path, data):
        if STATE not in path and path.endswith(".parquet"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(filesystem, path, data)

    wanted = job(models, data, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomic", full)
        with pytest.raises(pipemill.RunError, match=r"could not be written.*No space left"):
            pipemill.run(**wanted)
    assert pipemill.run(**wanted).done == 120


def test_the_command_line_ends_in_one_json_object(models, data, tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text(
        f"task: text-classification\nmodel: {models['text-classification']}\ninput: {data}\n"
        f"output: {tmp_path}/out\nactors: {{placement: local}}\n"
    )
    words = ["run", str(config), "--column", "text=body", "--param", "top_k=2"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    report = json.loads(out.splitlines()[-1])
    assert report | {"rows": 120, "done": 120, "dead": 0} == report
    assert report["output"] == f"{tmp_path}/out"
    assert report["rows_per_second"] > 0
    assert "120 done, 0 dead" in err
    assert "labels" in err, "a few result rows"
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["rows"], again["added"]["rows"]) == (120, 0)


@pytest.mark.parametrize("several", [False, True])
def test_some_rows_settle_whether_texts_have_several_masks(models, tmp_path, several):
    texts = ["one [MASK] of", "[MASK] river [MASK]" if several else "a [MASK]", None]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    job = {
        "task": "fill-mask",
        "model": models["fill-mask"],
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "rows_per_part": 2},
        "parameters": {"top_k": 2},
        "actors": {"placement": "local"},
    }
    report = pipemill.run(job)
    assert (report.done, report.dead) == (2, 1)
    found = ds.dataset(tmp_path / "out").to_table()["predictions"].to_pylist()
    if several:
        assert [[len(mask) for mask in row] for row in found] == [[2], [2, 2]]
    else:
        assert [len(row) for row in found] == [2, 2]
    # Of a split that is done again the rows alone would say otherwise: the plan remembers.
    part = min((tmp_path / "out").glob("part-*"))
    part.unlink()
    assert pipemill.run(job).done == 2
    assert ds.dataset(tmp_path / "out").to_table()["predictions"].to_pylist() == found
