"""Weights that are pickled are read only if the job says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from pipemill.pipelines.loading.model import Model
from safetensors.torch import load_file

import pipemill


@pytest.fixture
def pickled(models, tmp_path):
    folder = Path(shutil.copytree(models["text-classification"], tmp_path / "model"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_they_are_refused_before_anything_is_read_unless_asked_for(pickled, models, tmp_path):
    pq.write_table(pa.table({"text": ["a mill", "the red river"]}), tmp_path / "in.parquet")
    job = {
        "task": "text-classification",
        "model": {"path": str(pickled)},
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
    }
    with pytest.raises(
        pipemill.ConfigError, match=r"pickled \(pytorch_model\.bin\).*use_safetensors to false"
    ):
        pipemill.run(job)
    assert not (tmp_path / "out").exists()
    job["model"]["use_safetensors"] = False
    assert pipemill.run(job).done == 2
    job = {**job, "model": models["text-classification"], "output": str(tmp_path / "usual")}
    pipemill.run(job)
    answers = [ds.dataset(tmp_path / name).to_table() for name in ("out", "usual")]
    assert answers[0].equals(answers[1])


def test_a_worker_does_not_read_them_either(pickled):
    with pytest.raises((OSError, ValueError), match="safetensors"):
        Model(path=str(pickled)).load("text-classification")


def test_beside_safe_ones_they_are_left_alone(models, pickled):
    shutil.copy(Path(models["text-classification"]) / "model.safetensors", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"not weights")
    assert Model(path=str(pickled)).load("text-classification").model is not None
