"""Tasks of other packages, and those of a transformers that is newer than pipemill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.jobs.cli.app import main
from pipemill.pipelines import registry
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import tiny

ROOT = Path(__file__).parent.parent.parent
TEXTS = tiny.texts(30, seed=31, longest=12)

# What a user's package holds, beside its pyproject.toml. The task is known without torch.
PACKAGE = '''
import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter
from pipemill.pipelines.pipeline_task import PipelineTask, fixed

PAIRS = PipelineTask(
    name="pair-classification",
    inputs=(
        Column(name="text", kind="text"),
        Column(name="second_text", kind="text", required=False, parameter=True),
    ),
    parameters={"second_text": Parameter(None, "str|null")},
    results=fixed(label=pa.string(), logits=pa.list_(pa.float32())),
    record=lambda answer, values: {"label": answer["label"], "logits": answer["logits"]},
    pipeline_class="tests.support.own_pipelines:PairPipeline",
    adds="label, logits",
)


class Margin:
    """How far the first label is from the second."""

    name = "label-margin"
    inputs = (Column(name="text", kind="text"),)
    parameters = {"scale": Parameter(1.0, "float")}
    adds = "margin: float"
    pipeline_class = "transformers:TextClassificationPipeline"

    @staticmethod
    def check(parameters):
        if parameters["scale"] <= 0:
            raise ValueError("scale is above 0")

    def __init__(self, loaded: Loaded):
        self.pipeline = loaded.pipeline
        self.scale = loaded.settings(self.parameters)["scale"]

    def results(self):
        return pa.schema([("margin", pa.float32())])

    def expand(self, rows):
        ids = self.pipeline.tokenizer(rows["text"].to_pylist())["input_ids"]
        return pa.array([[{"size": len(one), "group": len(one), "ids": one}] for one in ids])

    def forward(self, chunks):
        import torch

        ids = torch.tensor(chunks.field("ids").to_pylist())
        with torch.inference_mode():
            logits = self.pipeline.model(ids, attention_mask=torch.ones_like(ids)).logits
        return pa.array((logits[:, 0] - logits[:, 1]).tolist(), pa.float32())

    def regroup(self, rows, outputs):
        return pa.table({"margin": [self.scale * one[0] for one in outputs.to_pylist()]})


'''
ENTRY_POINTS = """[pipemill.tasks]
pair-classification = mill_extra:PAIRS
label-margin = mill_extra:Margin
misnamed = mill_extra:Margin
missing = mill_nowhere:TASK
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder as pip leaves it in site-packages."""
    site = tmp_path / "site"
    info = site / "mill_extra-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mill_extra.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mill-extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "mill_extra", raising=False)
    return site


@pytest.fixture
def wanted(models, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    return {
        "model": models["text-classification"],
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
    }


def logits(models):
    """Of each text by itself, with nothing of pipemill."""
    import torch

    path = models["text-classification"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    with torch.inference_mode():
        return [
            [model(**tokenizer(*pair, return_tensors="pt")).logits[0].tolist() for pair in pairs]
            for pairs in ([(t,) for t in TEXTS], [(t, "the river") for t in TEXTS])
        ]


def test_a_declared_task_and_a_class_of_another_package(models, package, wanted, tmp_path):
    alone, beside = logits(models)
    pipemill.run(task="pair-classification", parameters={"second_text": "the river"}, **wanted)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.field("logits").type == pa.list_(pa.float32())
    for found, right in zip(table["logits"].to_pylist(), beside, strict=True):
        assert found == pytest.approx(right, abs=1e-4)
    wanted["output"] = str(tmp_path / "margins")
    pipemill.run(task="label-margin", parameters={"scale": 2}, **wanted)
    margins = ds.dataset(tmp_path / "margins").to_table()["margin"].to_pylist()
    assert margins == pytest.approx([2 * (one[0] - one[1]) for one in alone], abs=1e-4)
    assert len(set(margins)) > 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "label-margn"], "did you mean 'label-margin'"),
        (["--task", "label-margin", "--param", "scale=-1"], "scale is above 0"),
        (["--task", "label-margin", "--param", "scal=1"], "did you mean 'scale'"),
        (["--task", "misnamed"], "it calls itself 'label-margin'"),
        (["--task", "missing"], "No module named 'mill_nowhere'"),
    ],
)
def test_a_mistake_in_it_or_with_it_is_one_message(package, wanted, capsys, flags, message):
    words = [w for name in ("model", "input", "output") for w in (f"--{name}", wanted[name])]
    assert main(["run", *words, *flags]) == 2
    assert message in capsys.readouterr().err


def test_it_is_known_without_torch(package):
    code = (
        "import sys\n"
        "from pipemill.pipelines.registry import find_task, task_names\n"
        "print(find_task('label-margin').name, 'label-margin' in task_names())\n"
        "print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    )
    paths = os.pathsep.join([str(package), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["label-margin True", "set()"]


def test_a_task_that_only_transformers_knows(models, wanted, tmp_path, monkeypatch):
    """One that a later transformers brings; here one of today that pipemill is made to forget."""
    forgotten = {n: home for n, home in registry._TASKS.items() if n != "token-classification"}
    monkeypatch.setattr(registry, "_TASKS", forgotten)
    assert registry.is_transformers_task("token-classification")
    wanted["model"] = models["token-classification"]
    report = pipemill.run(
        task="token-classification", parameters={"aggregation_strategy": "simple"}, **wanted
    )
    assert (report.rows, report.dead) == (30, 0)
    table = ds.dataset(tmp_path / "out").to_table()
    plain = transformers.pipeline(
        "token-classification", model=wanted["model"], aggregation_strategy="simple", device="cpu"
    )
    expected = [plain(text) for text in TEXTS]
    assert len({str(answer) for answer in expected}) > 20
    fields = {field.name for field in table.schema.field("result").type.value_type}
    assert fields == {"entity_group", "score", "word", "start", "end"}
    words = [[entity["word"] for entity in answer] for answer in table["result"].to_pylist()]
    assert words == [[entity["word"] for entity in answer] for answer in expected]


def test_its_column_is_asked_for_if_none_has_a_usual_name(models, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", {})
    pq.write_table(pa.table({"id": range(30), "body": TEXTS}), tmp_path / "in.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"which column goes into .*--column.*id, body"):
        pipemill.run(task="text-classification", **wanted)
    report = pipemill.run(task="text-classification", columns={"inputs": "body"}, **wanted)
    assert report.done == 30
    with pytest.raises(pipemill.ConfigError, match="no task 'text-clasification'"):
        pipemill.run(task="text-clasification", **wanted)


def test_rows_that_all_fail_are_no_fault_of_a_model_where_others_know_what_it_takes(
    models, package, monkeypatch
):
    def expand(self, rows):
        raise ValueError("a text holds the two sides of a pair")

    monkeypatch.setattr("mill_extra.Margin.expand", expand)
    model = Model(path=models["text-classification"])
    stages = LoadTask(task="label-margin", model=model, columns=(("text", "text"),))()
    assert len(stages.process(Batch(pa.table({"text": ["mill", "river"]}))).failures) == 2


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's with the same tasks, in no installed package."""
    (tmp_path / "mill_module.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    yield "mill_module"
    sys.modules.pop("mill_module", None)


def test_a_registered_task_runs_in_a_worker_process(module, models, tmp_path, monkeypatch):
    # A Ray of other tests, which does not know the module's folder, is left alone.
    monkeypatch.setattr("pipemill.jobs.execution.single_process.joins_ray", lambda cluster: False)
    assert pipemill.register_task(f"{module}:Margin").name == "label-margin"
    assert "label-margin" in [task.name for task in pipemill.tasks()]
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    report = pipemill.run(
        task="label-margin",
        model=models["text-classification"],
        input=tmp_path / "in.parquet",
        output=tmp_path / "out",
        parameters={"scale": 2.0},
        actors={"num_gpus": "cpu"},
    )
    expected = [2 * (one[0] - one[1]) for one in logits(models)[0]]
    assert report.to_arrow()["margin"].to_pylist() == pytest.approx(expected, abs=1e-4)
    # Edited now, the workers would have other code than this process.
    file = tmp_path / "mill_module.py"
    edited = PACKAGE.replace("    def expand(self, rows):", "    def expand(self, rows, a=1):")
    for text in (edited, "def ("):
        file.write_text(text)
        with pytest.raises(pipemill.ConfigError, match=r"label-margin.*mill_module.py was changed"):
            pipemill.preview(
                task="label-margin",
                model=models["text-classification"],
                input=tmp_path / "in.parquet",
            )


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("mill_module", "'mill_module' is not the place of a task: name it as 'package.module:"),
        ("__main__:TASK", "in a module that workers can import"),
        ("mill_module:NOTHING", "mill_module:NOTHING can't be used: AttributeError"),
        ("mill_nowhere:TASK", "can't be used: ModuleNotFoundError: No module named 'mill_nowhere'"),
        ("mill_module:Parameter", "can't be used: AttributeError|has no"),
        (
            "pipemill.pipelines.tasks.fill_mask:FILL_MASK",
            "has the name of a task of pipemill, 'fill-mask'",
        ),
    ],
)
def test_what_can_not_be_registered_is_said(module, location, message):
    with pytest.raises(pipemill.ConfigError, match=message):
        pipemill.register_task(location)
    assert registry._registered == {}
