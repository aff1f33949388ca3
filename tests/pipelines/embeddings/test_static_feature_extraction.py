"""Static embeddings against the vectors that their libraries gave."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.jobs.config.load import make_job
from pipemill.jobs.prepare import prepare_without_output

import pipemill
from tests.references import make_static_embeddings as references

TEXTS = references.TEXTS
VECTORS = json.loads((references.HERE / "vectors.json").read_text())
CASES = [(name, i) for name, cases in VECTORS.items() for i in range(len(cases))]


def build(tmp_path, model, texts=TEXTS, **parameters):
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    paths = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out")}
    sections = {"model": str(model), "parameters": parameters, **paths}
    return {"task": "feature-extraction", **sections}


@pytest.mark.parametrize(("name", "number"), CASES)
def test_vectors_are_those_of_encode(tmp_path, name, number):
    case = VECTORS[name][number]
    job = make_job(build(tmp_path, references.HERE / name, **case["options"]), "test")
    loaded = prepare_without_output(job).load()
    assert np.unique(np.round(case["vectors"], 6), axis=0).shape[0] >= 5
    for budget in (1, 60, 65536):
        stages = Stages(loaded.task, loaded.columns, TokenBudget(budget))
        batch = stages.process(Batch(pa.table({"text": TEXTS})))
        got = np.array(batch.results["embedding"].to_pylist())
        np.testing.assert_allclose(got, np.array(case["vectors"]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["model2vec", "module"])
def test_a_job_truncates_vectors(tmp_path, name):
    def embed(**parameters):
        job = make_job(build(tmp_path, references.HERE / name, **parameters), "test")
        loaded = prepare_without_output(job).load()
        batch = loaded.process(Batch(pa.table({"text": TEXTS})))
        return np.array(batch.results["embedding"].to_pylist())

    whole = embed(normalize=False)
    np.testing.assert_array_equal(embed(normalize=False, truncate_dim=3), whole[:, :3])
    lengths = np.linalg.norm(whole[:, :3], axis=1, keepdims=True)
    scaled = embed(normalize=True, truncate_dim=3)
    np.testing.assert_allclose(scaled, whole[:, :3] / np.maximum(lengths, 1e-12), rtol=1e-5)


def test_a_run_imports_no_torch_and_counts_what_is_cut_off(tmp_path):
    """The whole command's process, and those that it starts, would be slow with torch."""
    job = build(tmp_path, references.HERE / "model2vec_quantized", max_length=3)
    code = (
        "import sys, pipemill\n"
        f"report = pipemill.run(**{job!r}, actors={{'placement': 'local'}})\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules), sys.modules\n"
        "print(report.to_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["pooling"] == "mean; static embeddings (model2vec), at most 3 tokens"
    # 41 of the third text's 44 words, 3 of the fourth's 6, and one each of two others: model2vec
    # cuts texts to the characters that 3 tokens usually have.
    assert report["truncated"] == {"rows": 4, "tokens": 46}
    assert report["done"] == len(TEXTS)


def test_a_sample_is_computed_again(tmp_path):
    job = build(tmp_path, references.HERE / "module", texts=TEXTS * 20)
    pipemill.run(**job, actors={"placement": "local"})
    check = pipemill.verify(tmp_path / "out", sample=20)
    assert check.ok
    assert check.sample.pipemill == 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "cls"}, "pooling cls is not for static embeddings: each text is the mean"),
        ({"stride": 2}, "stride is not for static embeddings: leave it out"),
        ({"tokenize_kwargs": {"add_special_tokens": False}}, "add_special_tokens is not for"),
    ],
)
def test_what_it_does_not_have_is_named(tmp_path, parameters, message):
    with pytest.raises(pipemill.ConfigError, match=message):
        pipemill.run(**build(tmp_path, references.HERE / "model2vec", **parameters))


def test_another_task_is_refused(tmp_path):
    job = build(tmp_path, references.HERE / "model2vec") | {"task": "text-classification"}
    with pytest.raises(pipemill.ConfigError, match="static embeddings, which only feature-extr"):
        pipemill.run(**job)


def test_a_tokenizer_of_another_model_is_one_message(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(references.HERE / "model2vec", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["more"] = 45
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(pipemill.RunError, match="token id 45, beyond the 45 static embeddings"):
        pipemill.run(**build(tmp_path, folder), actors={"placement": "local"})


def test_a_few_hundred_thousand_rows_need_no_ray(tmp_path, monkeypatch):
    from pipemill.jobs.execution.placement import SINGLE, resolve_placement

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = build(tmp_path, references.HERE / "model2vec", texts=TEXTS * 3000)
    prepared = prepare_without_output(make_job(job, "test"))
    assert [split.stop - split.start for split in prepared.plan.splits] == [10500, 10500]
    actors, splits = prepared.job.actors, prepared.plan.splits
    assert resolve_placement("fused", actors, splits, prepared.is_static) == SINGLE
    assert resolve_placement("fused", actors, splits) == "fused"


def test_beside_another_task_splits_are_of_the_usual_size(tmp_path, models):
    job = build(tmp_path, references.HERE / "model2vec", texts=TEXTS * 3000)
    static = {"task": job.pop("task"), "model": job.pop("model")}
    other = {"task": "feature-extraction", "model": models["feature-extraction"], "name": "b"}
    alone = prepare_without_output(make_job({**job, **static}, "test"))
    assert alone.is_static
    both = prepare_without_output(make_job({**job, "tasks": [static, other]}, "test"))
    assert not both.is_static
    assert len(both.plan.splits) > len(alone.plan.splits)
