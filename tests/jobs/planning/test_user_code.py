"""Pipelines that users bring: a class, or code in the model's folder; their columns and errors."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.child_process import start_python
from pipemill.jobs.cli.app import main
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.user_code import find_hiding_files

import pipemill
from tests.support import own_pipelines, tiny

ROOT = Path(__file__).parent.parent.parent.parent
TEXTS = tiny.texts(40, seed=21, longest=12)
OTHERS = tiny.texts(40, seed=22, longest=6)
HERE = "tests.support.own_pipelines"
LOGITS = {"label": "string", "score": "float32", "logits": "list<float32>"}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": range(40), "text": TEXTS, "other": OTHERS}), path)
    return path


def job(models, data, path, name, task="text-classification", *, output=None, **more):
    return {
        "task": task,
        "pipeline_class": f"{HERE}:{name}",
        "model": models["text-classification"],
        "input": str(data),
        "output": {"path": str(path), "rows_per_part": 20, **(output or {})},
        "actors": {"placement": "local"},
        **more,
    }


def truth(models, name, rows, **parameters):
    """Row by row, without pipemill."""
    own = transformers.pipeline(
        "text-classification",
        model=models["text-classification"],
        pipeline_class=getattr(own_pipelines, name),
        device="cpu",
    )
    answers = [own(*row, **parameters) for row in rows]
    assert len({json.dumps(answer) for answer in answers}) > 5, "a swapped answer would show"
    return answers


def near(answer):
    return pytest.approx(answer, abs=1e-5) if isinstance(answer, float) else answer


@pytest.mark.parametrize("task", ["text-classification", "pair-classification"])
def test_an_answer_of_another_shape_is_the_column_result(models, data, tmp_path, task):
    wanted = job(models, data, tmp_path / "out", "PairPipeline", task)
    report = pipemill.run(**wanted, parameters={"second_text": "the river"})
    assert (report.rows, report.done) == (40, 40)
    table = ds.dataset(tmp_path / "out").to_table()
    inner = {"label": pa.string(), "score": pa.float64(), "logits": pa.list_(pa.float64())}
    assert table.schema.names == ["id", "text", "other", "result"]
    assert table.schema.field("result").type == pa.struct(inner)
    expected = truth(models, "PairPipeline", [(text,) for text in TEXTS], second_text="the river")
    for answer, right in zip(table["result"].to_pylist(), expected, strict=True):
        assert answer["label"] == right["label"]
        assert answer["score"] == near(right["score"])
        assert answer["logits"] == pytest.approx(right["logits"], abs=1e-4)


def test_the_class_itself_may_be_given(models, data, tmp_path):
    wanted = job(models, data, tmp_path / "out", "Louder")
    pipemill.run(**wanted | {"pipeline_class": own_pipelines.Louder})
    assert pipemill.run(**wanted).added["rows"] == 0  # the same job
    inner = type("Inner", (transformers.TextClassificationPipeline,), {"__module__": "__main__"})
    with pytest.raises(pipemill.ConfigError, match="class Inner is defined in __main__, from whe"):
        pipemill.run(**wanted | {"pipeline_class": inner})


@pytest.mark.parametrize("first", ["text", "second_text"])
@pytest.mark.parametrize("task", ["text-classification", "pair-classification"])
def test_a_column_can_be_a_parameter_of_each_row(models, data, tmp_path, task, first):
    wanted = job(models, data, tmp_path / "out", "PairPipeline", task, output={"schema": LOGITS})
    columns = {"text": "text", "second_text": "other"}
    pipemill.run(**wanted, columns=dict(sorted(columns.items(), key=lambda c: c[0] != first)))
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.field("logits").type == pa.list_(pa.float32())
    assert table.schema.names[-3:] == ["label", "score", "logits"]
    own = [
        truth(models, "PairPipeline", [(t,) for t in TEXTS], second_text=other)[i]
        for i, other in list(enumerate(OTHERS))[:3]
    ]
    for i, right in enumerate(own):
        assert table["label"][i].as_py() == right["label"]
        assert table["logits"][i].as_py() == pytest.approx(right["logits"], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "top_k"), [("FirstWord", None), ("Softer", None), ("Louder", None), ("Louder", 2)]
)
def test_one_overridden_step_keeps_the_columns_of_the_task(models, data, tmp_path, name, top_k):
    given = {} if top_k is None else {"top_k": top_k}
    pipemill.run(**job(models, data, tmp_path / "out", name), parameters=given)
    table = ds.dataset(tmp_path / "out").to_table()
    # transformers returns a list of one answer for a text, unless it is told how many.
    expected = truth(models, name, [(text,) for text in TEXTS], **given)
    if top_k is None:
        assert table.schema.field("score").type == pa.float32()
        assert table["label"].to_pylist() == [answer[0]["label"] for answer in expected]
        scores = [answer[0]["score"] for answer in expected]
        assert table["score"].to_pylist() == pytest.approx(scores, abs=1e-5)
    else:
        labels = [[one["label"] for one in answer] for answer in expected]
        assert table["labels"].to_pylist() == labels
    plain = truth(models, "TextClassificationPipeline", [(text,) for text in TEXTS], **given)
    assert plain != expected, "the override shows"


@pytest.mark.parametrize(("name", "once"), [("FirstWord", False), ("Steady", True)])
def test_equal_inputs_are_computed_once_where_the_pipeline_says_so(models, tmp_path, name, once):
    texts = [*TEXTS[:10], *TEXTS[:10], *TEXTS[:5]]
    rows = pa.table({"id": range(25), "text": texts, "other": texts})
    pq.write_table(rows, tmp_path / "in.parquet")
    report = pipemill.run(**job(models, tmp_path / "in.parquet", tmp_path / "out", name))
    assert (report.done, bool(report.repeated)) == (25, once)
    table = ds.dataset(tmp_path / "out").to_table()
    expected = truth(models, name, [(text,) for text in texts])
    assert table["label"].to_pylist() == [answer[0]["label"] for answer in expected]
    scores = [answer[0]["score"] for answer in expected]
    assert table["score"].to_pylist() == pytest.approx(scores, abs=1e-5)


def test_chunks_of_a_row_come_together(models, data, tmp_path):
    pipemill.run(**job(models, data, tmp_path / "out", "Words", "score-words"))
    found = ds.dataset(tmp_path / "out").to_table()["result"].to_pylist()
    for answer, right in zip(found, truth(models, "Words", [(t,) for t in TEXTS]), strict=True):
        assert answer["words"] == right["words"]
        assert answer["best"] == near(right["best"])


def test_what_a_sample_has_shown_holds_for_every_later_row(models, tmp_path):
    texts = [*TEXTS, *TEXTS, "many", "more", "shouts"]  # later than the sample
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    wanted = job(models, tmp_path / "in.parquet", tmp_path / "out", "Moody")
    report = pipemill.run(**wanted)
    assert (report.rows, report.dead) == (83, 3)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.field("result").type == pa.struct({"words": pa.int64()})
    counts = [{"words": len(text.split())} for text in TEXTS]
    assert table["result"].to_pylist() == counts * 2
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    messages = {letter["text"]: (letter["error"], letter["message"]) for letter in letters}
    assert messages["shouts"] == ("RuntimeError", "no!")
    for text in ("many", "more"):
        assert "result: struct<words: int64>" in messages[text][1]
        assert "declare the columns in output.schema" in messages[text][1]
    declared = {"words": "string", "more": "int64"}
    again = job(
        models, tmp_path / "in.parquet", tmp_path / "two", "Moody", output={"schema": declared}
    )
    assert pipemill.run(**again).dead == 82, "a declared text takes no number"
    letters = ds.dataset(tmp_path / "two/_pipemill/dead-letter").to_table().to_pylist()
    assert "does not fit words: string, more: int64" in letters[0]["message"]
    assert "change output.schema" in letters[0]["message"]


def test_a_second_run_asks_no_sample(models, data, tmp_path, monkeypatch):
    wanted = job(models, data, tmp_path / "out", "PairPipeline")
    pipemill.run(**wanted)
    whole = ds.dataset(tmp_path / "out").to_table()
    labels = pc.struct_field(whole["result"], "label")
    plan = Plan.from_bytes((tmp_path / "out/_pipemill/plan.parquet/rows").read_bytes())
    assert pa.ipc.read_schema(pa.py_buffer(plan.results)).names == ["result"]

    def never(*_):
        raise AssertionError("it is known already")

    monkeypatch.setattr("pipemill.jobs.run.infer_columns", never)
    assert pipemill.run(**wanted).added["rows"] == 0
    next(iter((tmp_path / "out").glob("part-*1-*.parquet"))).unlink()
    assert pipemill.run(**wanted).added["rows"] == 20
    again = ds.dataset(tmp_path / "out").to_table()
    assert again.schema.equals(whole.schema)
    assert pc.struct_field(again["result"], "label").equals(labels)


def test_other_code_is_another_job(models, data, tmp_path, monkeypatch):
    source = (ROOT / "tests/support/own_pipelines.py").read_text()
    (tmp_path / "edited.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = job(models, data, tmp_path / "out", "Louder") | {"pipeline_class": "edited:Louder"}
    pipemill.run(**wanted)
    (tmp_path / "edited.py").write_text(source + "# another one\n")
    with pytest.raises(pipemill.ConfigError, match="code of pipeline_class"):
        pipemill.run(**wanted)


@pytest.mark.parametrize(
    ("setting", "status", "message"),
    [
        ("pipeline_class=tests.own_pipeline:Words", 2, "no module 'tests.own_pipeline'"),
        ("pipeline_class=nothing.at.all:Words", 2, "no module 'nothing.at.all'"),
        ("pipeline_class=Words", 2, "must be package.module:Class, not 'Words'"),
        (f"pipeline_class={HERE}:Wrods", 2, "no 'Wrods'; did you mean 'Words'"),
        (f"pipeline_class={HERE}:NoPipeline", 2, "not a subclass of transformers.Pipeline"),
        ("output.schema={label: strng}", 2, "output.schema.label: 'strng' is not an Arrow type"),
        ("input.columns={scond_text: other}", 2, "no parameter 'scond_text' (input.columns)"),
        ("parameters={scond_text: a}", 2, "PairPipeline knows no parameter 'scond_text' (param"),
    ],
)
def test_a_wrong_class_is_one_message(models, data, tmp_path, capsys, setting, status, message):
    words = ["--task", "text-classification", "--model", models["text-classification"]]
    words += ["--input", str(data), "--output", str(tmp_path / "out")]
    words += ["--set", "actors.placement=local", "--set", f"pipeline_class={HERE}:PairPipeline"]
    assert main(["run", *words, "--set", setting]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_current_folder_that_was_deleted_is_one_message(models, data, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(pipemill.ConfigError, match="no longer exists: go to another one"):
        pipemill.run(**job(models, data, tmp_path / "out", "Words"))


def test_a_declared_schema_is_for_own_pipelines(models, data, tmp_path):
    wanted = job(models, data, tmp_path / "out", "Words", output={"schema": {"label": "string"}})
    with pytest.raises(pipemill.ConfigError, match="the columns of text-classification are known"):
        pipemill.run(**(wanted | {"pipeline_class": None}))


def test_all_rows_of_the_sample_fail(models, tmp_path):
    pq.write_table(pa.table({"text": ["shouts"] * 3}), tmp_path / "in.parquet")
    wanted = job(models, tmp_path / "in.parquet", tmp_path / "out", "Moody")
    with pytest.raises(pipemill.RunError, match=r"first rows could be computed; row 0: Run.*no!"):
        pipemill.run(**wanted)


@pytest.fixture(scope="module")
def own_model(models, tmp_path_factory):
    """As transformers saves a pipeline that it was told of."""
    from transformers.pipelines import PIPELINE_REGISTRY

    folder = tmp_path_factory.mktemp("own")
    shutil.copy(ROOT / "tests/support/own_pipelines.py", folder / "pair_code.py")
    task, auto = "pair-classification", transformers.AutoModelForSequenceClassification
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        pipeline_class = importlib.import_module("pair_code").PairPipeline
        patch.setattr(PIPELINE_REGISTRY, "supported_tasks", {**PIPELINE_REGISTRY.supported_tasks})
        PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=auto)
        own = transformers.pipeline(task, model=models["text-classification"], device="cpu")
        own.save_pretrained(folder / "saved")
    del sys.modules["pair_code"]
    (folder / "pair_code.py").unlink()
    return folder / "saved"


def test_code_in_the_models_folder_runs_only_if_allowed(models, data, tmp_path, own_model):
    wanted = job(models, data, tmp_path / "out", "", "pair-classification")
    wanted |= {"pipeline_class": None, "model": str(own_model)}
    with pytest.raises(
        pipemill.ConfigError, match=r"code in its folder for .* \(pair_code.PairPipeline\)"
    ):
        pipemill.run(**wanted)
    wanted["model"] = {"path": str(own_model), "trust_remote_code": True}
    pipemill.run(**wanted, parameters={"second_text": "the river"})
    found = ds.dataset(tmp_path / "out").to_table()["result"].to_pylist()
    expected = truth(models, "PairPipeline", [(text,) for text in TEXTS], second_text="the river")
    assert [answer["label"] for answer in found] == [answer["label"] for answer in expected]


def test_a_model_of_its_own_code_is_refused_unless_allowed(models, data, tmp_path):
    shutil.copytree(models["text-classification"], tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_mine.Mine"}
    wanted = job(models, data, tmp_path / "out", "Louder") | {"model": str(tmp_path / "model")}
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "model_type": "mine"}))
    with pytest.raises(pipemill.ConfigError, match=r"modeling_mine\.Mine.*trust_remote_code"):
        pipemill.run(**wanted)
    # Transformers' own code does for a kind of model that it knows.
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    assert pipemill.run(**wanted).done == 40


@pytest.fixture
def folder(models, data, tmp_path):
    """A user's folder, with a job whose class is in it."""
    folder = tmp_path / "user"
    folder.mkdir()
    shutil.copy(ROOT / "tests/support/own_pipelines.py", folder / "mine.py")
    (folder / "job.yaml").write_text(
        "task: pair-classification\npipeline_class: mine:PairPipeline\n"
        f"model: {models['text-classification']}\ninput: {data}\n"
        "output: {path: out, schema: {label: string, score: float32}}\n"
        "actors: {max: 1}\n"
    )
    return folder


def check_answers(out, folder):
    assert json.loads(out.splitlines()[-1])["done"] == 40
    table = ds.dataset(folder / "out").to_table()
    assert table.schema.names == ["id", "text", "other", "label", "score"]


def test_the_command_finds_a_module_in_its_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["run", "job.yaml", "--set", "actors.placement=local"]) == 0
    del sys.modules["mine"]
    check_answers(capsys.readouterr().out, folder)


def test_files_of_the_current_folder_hide_no_library_of_rays_workers(folder):
    for name in ("transformers.py", "statistics.py", "torch/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise ImportError('of the user')")
    # As the installed command: its own folder is not the current one.
    command = folder.parent / "pipemill_command.py"
    command.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from pipemill.jobs.cli.app import main\nsys.exit(main())\n"
    )
    words = ["run", "job.yaml", "--set", "actors.placement=fused", "--set", "actors.cluster=local"]
    done = subprocess.run(
        [sys.executable, str(command), *words],
        cwd=folder, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, folder)


def test_the_sample_and_the_rows_are_computed_by_ray(models, data, tmp_path, ray_session):
    local = job(models, data, tmp_path / "local", "PairPipeline")
    pipemill.run(**local)
    wanted = job(models, data, tmp_path / "out", "PairPipeline")
    wanted["actors"] = {"placement": "fused", "max": 1}
    assert pipemill.run(**wanted).done == 40
    found, right = (ds.dataset(tmp_path / out).to_table() for out in ("out", "local"))
    assert found.schema.equals(right.schema)
    labels = [pc.struct_field(table["result"], "label") for table in (found, right)]
    assert labels[0].equals(labels[1])


def test_files_that_hide_a_module_of_every_worker_are_found(tmp_path):
    for name in ("queue.py", "jobs.py", "test.py", "torch/__init__.py", "tests/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "ray").mkdir()  # no package: Python takes the installed one
    assert find_hiding_files(tmp_path) == ["queue.py", "torch"]


def test_a_process_takes_no_module_of_the_current_folder_for_one_of_python(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    process = start_python("concurrent.futures.thread", stderr=subprocess.PIPE)
    assert process.communicate()[1] == b""
    assert process.returncode == 0


CHANGING = """
import transformers

class Changing(transformers.TextClassificationPipeline):
    def postprocess(self, outputs, **settings):
        return {"label": "LABEL", "score": 0.5}
"""


def test_code_that_was_edited_since_its_import_does_not_answer(models, data, tmp_path, monkeypatch):
    """As in a notebook: Python imports a module once."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    wanted = job(models, data, tmp_path / "out", "Changing") | {
        "pipeline_class": "changing:Changing"
    }

    def write_and_answer(label):
        (tmp_path / "changing.py").write_text(CHANGING.replace("LABEL", label))
        return pipemill.preview(wanted, rows=1).table["label"].to_pylist()

    assert write_and_answer("first") == ["first"]
    assert write_and_answer("first") == ["first"]
    with pytest.raises(pipemill.ConfigError, match=r"changing.py was changed .*\.reload\(changing"):
        write_and_answer("second")
    importlib.reload(sys.modules["changing"])
    assert write_and_answer("second") == ["second"]
