"""Memory that runs out for real, and models compiled by torch."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main

from tests.support import tiny

CONFIG = Path(__file__).parent.parent.parent / "configs/text-classification.yaml"


def run(capsys, model, rows, out, **settings):
    settings = {
        "model.path": model,
        "input.path": str(rows),
        "output.path": str(out),
        "actors.placement": "local",
        "actors.num_gpus": 1,
        "model.dtype": "float32",
        "input.columns.text": "text",
        "parameters.top_k": 1,
        **settings,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    assert main(["run", str(CONFIG), *flags]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told, ds.dataset(out, exclude_invalid_files=True).to_table()


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": tiny.texts(3000, longest=100)}), path)
    return path


def test_a_budget_beyond_the_memory_is_halved_until_it_fits(models, rows, tmp_path, capsys):
    import torch

    model = models["text-classification"]
    _, expected = run(capsys, model, rows, tmp_path / "usual")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(40 * 2**20 / total)
    try:
        # One split: its rows are one micro-batch, of some 70 MB.
        settings = {"batching.max_tokens": 2**20, "output.rows_per_part": 3000}
        told, found = run(capsys, model, rows, tmp_path / "little", **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told["dead"] == 0
    assert told["max_tokens"] < 2**20
    assert found["label"] == expected["label"]


def test_a_compiled_model_gives_the_same_answers(models, rows, tmp_path, capsys):
    model = models["text-classification"]
    _, expected = run(capsys, model, rows, tmp_path / "usual")
    _, found = run(capsys, model, rows, tmp_path / "compiled", **{"model.compile": "true"})
    assert found["label"] == expected["label"]
    assert found["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), abs=1e-3)


def test_a_packed_model_uses_a_kernel_for_sequences_of_any_length(models):
    import torch
    from pipemill.actors.task import Loaded
    from pipemill.pipelines.engines.encoder import make_encoder
    from pipemill.pipelines.engines.gpu_attention import memory_efficient, torch_varlen
    from pipemill.pipelines.loading.model import Model

    for dtype, kernel in (("float32", memory_efficient), ("bfloat16", torch_varlen)):
        model = Model(path=models["text-classification"], dtype=dtype, num_gpus=1)
        pipeline = model.load("text-classification")
        encoder = make_encoder(Loaded(pipeline=pipeline, parameters={}), reads="first")
        assert encoder.is_packed, dtype
        assert encoder.engine.kernel is kernel, (dtype, torch.__version__)
