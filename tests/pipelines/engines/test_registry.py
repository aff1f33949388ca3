"""An engine of another package: one file, one value in the config, one field of the fingerprint."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.task import Loaded
from pipemill.pipelines.engines import registry
from pipemill.pipelines.engines.base import Engine, EngineFactory
from pipemill.pipelines.engines.encoder import make_encoder

import pipemill
from tests.support import tiny

TEXTS = tiny.texts(30, seed=9, longest=12)

# The whole of a package's file. Its model is the tokenizer alone: no weights are loaded.
ENGINE = """
import numpy as np
from pipemill.pipelines.engines.base import Engine, EngineFactory, GenerationEngine


class Counting(Engine):
    is_packed = True

    def __init__(self, pipeline, outputs):
        assert outputs.reads == "first" and pipeline.device.type == "meta"
        self.labels = pipeline.model.config.num_labels

    def run(self, columns, lengths):
        starts = np.cumsum(lengths) - lengths
        sums = np.add.reduceat(columns["input_ids"], starts)
        return np.stack([(sums * (n + 1)) % 11 for n in range(self.labels)], 1).astype("float32")


class Echo(GenerationEngine):
    is_exact = True

    def __init__(self, pipeline, written):
        self.written = written

    def samples(self, keywords):
        return False

    def can_pad(self, keywords):
        return True

    def generate(self, prompts, keywords):
        import torch

        return [
            {**one, self.written: torch.cat([one["input_ids"], one["input_ids"]], 1)[None]}
            for one in prompts
        ]


COUNTING = EngineFactory(name="counting", encode=Counting, generate=Echo, loads_weights=False)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder as pip leaves it in site-packages."""
    site = tmp_path / "site"
    info = site / "mill_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mill_engine.py").write_text(ENGINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mill-engine\nVersion: 1.0\n")
    points = "[pipemill.engines]\ncounting = mill_engine:COUNTING\nlost = mill_nowhere:ENGINE\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "mill_engine", raising=False)


@pytest.fixture
def job(models, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")

    def build(engine, task="text-classification", **more):
        model = {"path": models[task], "engine": engine}
        paths = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out")}
        return {"task": task, "model": model, **paths, "actors": {"placement": "local"}, **more}

    return build


def test_a_text_model(models, package, job, tmp_path):
    pipemill.run(**job("counting"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["text-classification"])
    config = transformers.AutoConfig.from_pretrained(models["text-classification"])
    sums = np.array([sum(ids) for ids in tokenizer(TEXTS)["input_ids"]])
    logits = np.stack([(sums * (n + 1)) % 11 for n in range(config.num_labels)], axis=1)
    expected = [config.id2label[i] for i in logits.argmax(axis=1)]
    assert len(set(expected)) > 1
    assert ds.dataset(tmp_path / "out").to_table()["label"].to_pylist() == expected


def test_it_decides_the_results(package, job, tmp_path):
    pipemill.run(**job("counting"))
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert record["decides"]["model.engine"] == record["job"]["model"]["engine"] == "counting"
    assert pipemill.run(**job("counting")).done == 30
    with pytest.raises(pipemill.ConfigError, match=r"model.engine \('counting' then"):
        pipemill.run(**job("auto"))


def test_a_job_that_names_none_is_as_it_was_before_there_were_any(job, tmp_path):
    pipemill.run(**job("auto"))
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert "model.engine" not in record["decides"]
    assert "engine" not in record["job"]["model"]


def test_texts_that_it_writes(package, job, tmp_path):
    parameters = {"max_new_tokens": 3, "return_full_text": False}
    pipemill.run(**job("counting", "text-generation", parameters=parameters))
    written = ds.dataset(tmp_path / "out").to_table()["generated_text"].to_pylist()
    assert [text.split() for text in written] == [text.split() for text in TEXTS]


@pytest.mark.parametrize(
    ("engine", "message"),
    [("countin", "did you mean 'counting'"), ("lost", "No module named 'mill_nowhere'")],
)
def test_a_wrong_name_is_one_message(package, job, engine, message):
    with pytest.raises(pipemill.ConfigError, match=f"model.engine: .*{message}"):
        pipemill.run(**job(engine))


def test_a_task_that_it_does_not_run(package, job, monkeypatch):
    nothing = EngineFactory(name="nothing")
    monkeypatch.setattr(registry, "_REGISTERED", {})
    registry.register_engine(nothing)
    names = ["auto", "counting", "lost", "nothing", "onnx", "openvino", "vllm"]
    assert registry.list_engines() == names
    with pytest.raises(pipemill.ConfigError, match="model.engine nothing does not run text-clas"):
        pipemill.run(**job("nothing"))


def test_a_numpy_array_is_what_tasks_get_as_a_tensor(models, monkeypatch):
    class Lengths(Engine):
        def run(self, columns, lengths):
            return lengths[:, None].astype(np.float32)

    monkeypatch.setattr(registry, "_REGISTERED", {})
    made = EngineFactory(name="lengths", encode=lambda pipeline, outputs: Lengths())
    registry.register_engine(made)
    pipeline = transformers.pipeline("text-classification", model=models["text-classification"])
    encoder = make_encoder(Loaded(pipeline=pipeline, parameters={}, engine="lengths"), "first")
    got = encoder.run({"input_ids": np.arange(5, 10)}, np.array([2, 3]))
    assert got.tolist() == [[2.0], [3.0]]
    assert not encoder.is_packed
    with pytest.raises(ValueError, match="no tokens"):
        encoder.run({"input_ids": np.arange(5, 7)}, np.array([2, 0]))
