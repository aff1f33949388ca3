"""Exported models against the models themselves, by a runtime of torch's own and by those here."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from pipemill.jobs.config.load import make_job
from pipemill.jobs.measuring.benchmark import find_best
from pipemill.pipelines.engines import registry
from pipemill.pipelines.engines.base import EngineFactory
from pipemill.pipelines.engines.graphs.onnx import OnnxRuntime
from pipemill.pipelines.engines.graphs.openvino import OpenVinoRuntime

import pipemill
from tests.support import made_media, tiny

TEXTS = tiny.texts(40, seed=9, longest=30)
SCORES = {"flipped": 0, "largest_score_difference": 0.0}
RUNTIMES = [OnnxRuntime(), OpenVinoRuntime()]


class TorchScript:
    """Exports with `torch.jit.trace`: what can be tried where neither library is installed."""

    name = "torchscript"
    modules = ()
    dtypes = ("float32", "int8")
    width_step = 8
    exported = 0
    off = 0.0

    def calibrates(self, dtype):
        return dtype == "int8"

    def export(self, traced, folder):
        type(self).exported += 1
        tensors = tuple(map(torch.from_numpy, traced.examples[0]))
        torch.jit.trace(traced.module, tensors, check_trace=False).save(folder / "model.pt")

    def reduce(self, traced, folder, dtype):
        if dtype == "int8":
            (folder / "rows").write_text(str(sum(len(example[0]) for example in traced.examples)))

    def load(self, folder, dtype, threads):
        graph = torch.jit.load(folder / "model.pt")

        def run(inputs):
            with torch.inference_mode():
                found = graph(*map(torch.from_numpy, inputs))
            return [one.numpy() + self.off for one in found]

        return run


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pipemill/graphs"


@pytest.fixture
def torchscript(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.setattr(TorchScript, "exported", 0)
    registry.register_engine(EngineFactory(name="torchscript", graph=TorchScript()))
    return TorchScript


@pytest.fixture
def run(models, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")

    def run(engine, task="text-classification", dtype="auto", name="out", **more):
        model = {"path": models[task], "engine": engine, "dtype": dtype}
        paths = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / name)}
        job = {"task": task, "model": model, **paths, "actors": {"placement": "local"}, **more}
        pipemill.run(**job)
        return ds.dataset(tmp_path / name).to_table().to_pandas()

    return run


def compare(run, engine, task, dtype="auto", **more):
    """Run with torch and with an engine; return both results."""
    expected = run("auto", task, name=f"expected-{dtype}", **more)
    return run(engine, task, dtype, name=f"out-{dtype}", **more), expected


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_answers_are_those_of_the_model(run, torchscript, task):
    got, expected = compare(run, "torchscript", task)
    assert torchscript.exported == 1
    if task == "text-classification":
        assert expected["label"].nunique() > 1
        assert got["label"].tolist() == expected["label"].tolist()
        np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-4)
    else:
        words = [[[e["word"] for e in row] for row in one["entities"]] for one in (got, expected)]
        assert words[0] == words[1]
        assert sum(map(len, words[0])) > 10


def test_vectors_of_texts(run, torchscript):
    got, expected = compare(run, "torchscript", "feature-extraction")
    np.testing.assert_allclose(
        np.stack(got["embedding"]), np.stack(expected["embedding"]), atol=1e-4
    )


def test_pictures_of_a_model_with_large_layers(torchscript, tmp_path):
    """In torch it has layers of oneDNN's, which can't be exported."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    folder = tmp_path / "model"
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 1}
    config = ViTConfig(**sizes, num_attention_heads=6, image_size=64, num_labels=9)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    pictures = [made_media.png(made_media.picture(70, 60, i)) for i in range(6)]
    pq.write_table(pa.table({"image": pictures}), tmp_path / "in.parquet")

    def run(engine):
        model = {"path": str(folder), "engine": engine}
        paths = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / engine)}
        job = {"task": "image-classification", "model": model, **paths}
        pipemill.run(job, actors={"placement": "local"}, parameters={"top_k": 9})
        return ds.dataset(tmp_path / engine).to_table().to_pylist()

    for got, expected in zip(run("torchscript"), run("auto"), strict=True):
        by_label = [dict(zip(one["labels"], one["scores"], strict=True)) for one in (got, expected)]
        assert by_label[0] == pytest.approx(by_label[1], rel=1e-4)
    assert torchscript.exported == 1


def test_a_graph_is_exported_once_for_a_model_and_its_calibration(run, torchscript, cache):
    run("torchscript", name="a")
    run("torchscript", name="b", parameters={"top_k": 2})
    assert torchscript.exported == 1
    run("torchscript", dtype="int8", name="c")
    run("torchscript", dtype="int8", name="d")
    assert torchscript.exported == 2
    folders = sorted(path for path in cache.iterdir() if path.is_dir())
    assert [path.name.rpartition("-")[0] for path in folders] == [
        "torchscript-float32",
        "torchscript-int8",
    ]
    assert int((folders[1] / "rows").read_text()) >= len(set(TEXTS))


def test_a_graph_of_a_killed_process_is_built_again(run, torchscript, cache):
    run("torchscript", name="a")
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    half = folder.rename(folder.with_name(f"{folder.name}.part"))
    (half / "model.pt").write_bytes(b"half of it")
    run("torchscript", name="b")
    assert torchscript.exported == 2
    assert folder.is_dir()
    assert not half.exists()


def test_a_graph_with_other_answers_is_refused(run, torchscript, cache, monkeypatch):
    monkeypatch.setattr(torchscript, "off", 0.1)
    with pytest.raises(pipemill.RunError, match=r"gives other answers .*logits differs by 0\.1"):
        run("torchscript")
    assert not any(path.is_dir() for path in cache.iterdir())


def test_it_decides_the_results(run, torchscript, tmp_path):
    run("torchscript", dtype="int8")
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert record["decides"]["model.engine"] == "torchscript"
    assert record["decides"]["model.dtype"] == "int8"
    with pytest.raises(pipemill.ConfigError, match=r"model.dtype \('int8' then, 'float32' now\)"):
        run("torchscript", dtype="float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "text-generation"}, "openvino runs feature-extraction, .* not text-generation"),
        (
            {"model": {"engine": "onnx", "dtype": "bfloat16"}},
            "onnx computes in float32 or int8, no",
        ),
        ({"model": {"compile": True}}, "openvino and model.compile are both given: leave one out"),
        ({"actors": {"num_gpus": 1}}, "openvino computes on CPUs, but actors.num_gpus is 1"),
        (
            {"model": {"engine": "auto", "dtype": "int8"}},
            "dtype int8 is for the engines onnx and op",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_said_at_once(models, tmp_path, changes, message):
    task = changes.get("task", "text-classification")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    model = {"path": models[task], "engine": "openvino", **changes.get("model", {})}
    paths = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out")}
    with pytest.raises(pipemill.ConfigError, match=message):
        pipemill.run(**{"task": task, **paths, **changes, "model": model})


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_missing_library_names_the_extra(models, tmp_path, engine, monkeypatch):
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    with pytest.raises(pipemill.ConfigError) as raised:
        pipemill.run(
            task="text-classification",
            model={"path": models["text-classification"], "engine": engine},
            input=str(tmp_path / "in.parquet"),
            output=str(tmp_path / "out"),
        )
    assert f"for model.engine {engine}" in str(raised.value)
    assert f"pip install 'pipemill[{engine}]'" in str(raised.value)


@pytest.mark.parametrize(
    "runtime",
    [pytest.param(one, marks=pytest.mark.extras(*one.modules), id=one.name) for one in RUNTIMES],
)
def test_the_library_gives_the_answers_of_torch(run, runtime):
    for dtype in runtime.dtypes:
        got, expected = compare(run, runtime.name, "text-classification", dtype)
        apart = np.abs(got["score"] - expected["score"])
        # The tiny model's weights are spread out: no model that was trained is so sensitive.
        assert apart.max() < 1e-4 if dtype == "float32" else apart.mean() < 0.1


def test_examples_are_the_same_for_every_run(models, tmp_path, torchscript):
    from pipemill.jobs.prepare import prepare, prepare_without_output

    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in/a.parquet")
    job = {"task": "text-classification", "input": str(tmp_path / "in")}
    job |= {"model": {"path": models["text-classification"], "engine": "torchscript"}}
    job |= {"output": str(tmp_path / "out")}
    one, other = (prepare_without_output(make_job(job, "test")).load for _ in range(2))
    assert one.examples is not None
    assert one == other
    assert pa.ipc.open_stream(one.examples).read_all()["text"].to_pylist() == TEXTS
    assert prepare(make_job(job, "test")).load.examples == one.examples
    pq.write_table(pa.table({"text": ["more"]}), tmp_path / "in/b.parquet")
    later = prepare(make_job(job, "test"))
    assert len(later.plan.splits) == 2
    assert later.load.examples == one.examples, "of the input as it was at first"


@pytest.mark.parametrize(
    ("task", "parameters", "reports"),
    [
        ("text-classification", {}, SCORES),
        ("text-classification", {"top_k": 2}, SCORES),
        ("token-classification", {}, SCORES),
        ("token-classification", {"aggregation_strategy": "simple"}, SCORES),
        ("zero-shot-classification", {"candidate_labels": ["a", "mill"]}, SCORES),
        ("feature-extraction", {}, {"mean_cosine": 1.0, "least_cosine": 1.0}),
    ],
)
def test_verify_reports_the_drift(run, torchscript, tmp_path, task, parameters, reports):
    run("torchscript", task, "int8", parameters=parameters)
    check = pipemill.verify(tmp_path / "out", sample=40)
    assert check.ok
    shown = json.loads(check.to_json())["sample"]
    assert shown["tolerance"] is None
    drift = shown["drift"]
    assert (drift.pop("engine"), drift.pop("rows")) == ("torchscript int8", 40)
    expected = {"flipped": 0, **reports}
    assert drift.keys() == expected.keys()
    assert [drift[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-4)
    assert "torchscript int8: " in str(check)


def test_verify_finds_an_engine_that_is_not_precise_enough(run, torchscript, tmp_path):
    class Wrong(TorchScript):
        """Its int8 gives every text the same answer: as if one scale were infinite."""

        def load(self, folder, dtype, threads):
            run = super().load(folder, dtype, threads)
            return run if dtype == "float32" else lambda inputs: [one * 0 for one in run(inputs)]

    registry.register_engine(EngineFactory(name="torchscript", graph=Wrong()))
    got = run("torchscript", dtype="int8")
    assert got["score"].nunique() == 1
    check = pipemill.verify(tmp_path / "out", sample=40)
    (finding,) = check.findings
    assert "rows have another answer than with plain transformers in float32" in finding
    assert check.sample.drift.flipped > 0.1 * 40


def test_apply_has_no_rows_for_it(models, torchscript):
    class Dataset:
        __module__ = "ray.data.dataset"

    model = {"path": models["text-classification"], "engine": "torchscript"}
    with pytest.raises(pipemill.ConfigError, match="torchscript is made with the first rows"):
        pipemill.apply(Dataset(), task="text-classification", model=model)


def test_engines_are_tuned_side_by_side(models, torchscript, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    job = {"task": "text-classification", "model": models["text-classification"]}
    engines = ["torchscript", "torchscript:int8"]
    found = pipemill.tune(
        **job, input=str(tmp_path / "in.parquet"), rows=8, seconds=0.01, engines=engines
    )
    ways = {setting.how for setting in found.settings}
    assert ways == {"transformers", "sorted", "packed", "torchscript", "torchscript int8"}
    others = [setting for setting in found.settings if setting.how.startswith("torchscript")]
    assert all(setting.rows_per_second for setting in others)
    assert "torchscript int8, max_tokens=512" in str(found)
    # What changes answers is not recommended, however fast it is.
    fast = [replace(s, rows_per_second=1e9) if s in others else s for s in found.settings]
    assert find_best(fast).how == "packed"
    with pytest.raises(pipemill.ConfigError, match="no engine 'torchscrip'; did you mean"):
        pipemill.tune(**job, input=str(tmp_path / "in.parquet"), engines=["torchscrip"])
    with pytest.raises(pipemill.ConfigError, match="bfloat16"):
        pipemill.tune(**job, input=str(tmp_path / "in.parquet"), engines=["torchscript:bfloat16"])


def test_a_run_with_other_engines_is_planned_beside_the_jobs_own(models, torchscript, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    job = {"task": "text-classification", "model": models["text-classification"]}
    job["input"] = str(tmp_path / "in.parquet")
    engines = ["torchscript:int8"]
    found = pipemill.plan(**job, rows=8, seconds=0.01, price_per_hour=2.0, engines=engines)
    other = found.engines["torchscript int8"]
    assert other.rows == found.rows == len(TEXTS)
    assert other.rows_per_second > 0
    assert re.search(r"with torchscript int8 .* rows/s, a run of about .*, cost ", str(found))
    fields = json.loads(found.to_json())
    assert fields["engines"]["torchscript int8"]["run"]["actors"] == other.run.actors
    assert fields["recommended"] == {"batching": {"max_tokens": found.max_tokens}}
    plain = pipemill.plan(**job, rows=8, seconds=0.01)
    assert "engines" not in json.loads(plain.to_json())
    tasks = [{"name": name, **{k: job[k] for k in ("task", "model")}} for name in "ab"]
    with pytest.raises(pipemill.ConfigError, match=r"for one task, and the job has several"):
        pipemill.plan(tasks=tasks, input=job["input"], rows=8, engines=engines)
