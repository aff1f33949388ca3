"""Folders of sentence-transformers against the vectors that `SentenceTransformer.encode` gave."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.batch import Batch
from pipemill.actors.budget import Budget
from pipemill.actors.stages import Stages
from pipemill.jobs.config import make_job
from pipemill.jobs.prepare import look

from tests.references import sentence_folders

VECTORS = json.loads(sentence_folders.VECTORS.read_text())
CASES = [(name, i) for name, cases in VECTORS.items() for i in range(len(cases))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return cache(lambda name: sentence_folders.build(name, tmp_path_factory.mktemp(name) / "model"))


def loads(folder, texts, parameters, tmp_path, weights=True, **model):
    """What a run of these texts would load, as its driver settles it."""
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    job = make_job(
        {
            "task": "feature-extraction",
            "model": {"path": str(folder), **model},
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "parameters": parameters,
        },
        "test",
    )
    return look(job)


def parameters_of(case):
    options = dict(case["options"])
    if options.pop("normalize_embeddings", False):
        options["normalize"] = True
    return {**options, "truncation": True}


def vectors_of(batch):
    assert not batch.failures
    return np.array(batch.results["embedding"].to_pylist())


@pytest.mark.parametrize(("name", "number"), CASES)
def test_vectors_are_those_of_encode(folders, tmp_path, name, number):
    case = VECTORS[name][number]
    safe = {"use_safetensors": name != "old_pickled"}
    prepared = look_at(folders(name), case, tmp_path, **safe)
    full = prepared.load()
    light = load_without_weights(prepared.load)
    rows = pa.table({"text": case["texts"]})
    expected = np.array(case["vectors"])
    for budget in (1, 60, 100_000):
        stages = Stages(full.task, full.columns, Budget(budget))
        got = stages.process(Batch(rows))
        np.testing.assert_allclose(vectors_of(got), expected, atol=1e-5)
    staged = stages.forward(Batch.from_bytes(light.expand(Batch(rows)).to_bytes()))
    staged = light.regroup(Batch.from_bytes(staged.to_bytes()))
    np.testing.assert_allclose(vectors_of(staged), expected, atol=1e-5)


def look_at(folder, case, tmp_path, **model):
    return loads(folder, case["texts"], parameters_of(case), tmp_path, **model)


def load_without_weights(load):
    from dataclasses import replace

    return replace(load, weights=False)()
