"""Every task on a GPU gives the answers that it gives on a CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pipemill.jobs.cli.app import main

from tests.gpu.differences import compare
from tests.support.config_data import CONFIGS

FOLDER = Path(__file__).parent.parent.parent / "configs"
AUDIO = ("any-to-any", "audio-classification", "automatic-speech-recognition")
NEEDS = {
    "mask-generation": "torchvision",
    **dict.fromkeys((*AUDIO, "video-classification", "zero-shot-audio-classification"), "av"),
}
# Random numbers of the device are not the CPU's.
SAMPLES = {"text-to-audio", "text-generation"}
# A number of a picture may lie at the edge of a level.
LEVEL = 1.01 / 255


def run(name: str, model: str, rows: str, out: Path, capsys, **settings: object) -> pa.Table:
    """Run a config in this process; return its rows in order."""
    settings = {
        "model.path": model,
        "input.path": rows,
        "output.path": str(out),
        "actors.placement": "local",
        **settings,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    assert main(["run", str(FOLDER / f"{name}.yaml"), *flags]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["dead"] == 0, told["dead_letters"]
    parts = sorted(out.glob("part-*.parquet"))
    return pa.concat_tables([ds.dataset(part).to_table() for part in parts])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_those_of_the_cpu(models, tmp_path, capsys, name, dtype):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    (tmp_path / "data").mkdir()
    model, rows = CONFIGS[name](models, tmp_path / "data")
    cpu = {"model.dtype": "float32", "actors.num_gpus": 0}
    gpu = {"model.dtype": dtype, "actors.num_gpus": 1}
    on_cpu = run(name, model, rows, tmp_path / "cpu", capsys, **cpu)
    on_gpu = run(name, model, rows, tmp_path / "gpu", capsys, **gpu)
    assert on_gpu.num_rows == on_cpu.num_rows > 0
    added = (
        [c for c in on_cpu.column_names if c not in ds.dataset(rows).schema.names]
        if (rows.endswith(".parquet"))
        else on_cpu.column_names
    )
    difference = compare(on_cpu, on_gpu, added)
    print(f"DIFFERENCE {name} {dtype} {difference}")
    if name in SAMPLES:
        return
    if dtype == "float32":
        assert difference.numbers < (LEVEL if name == "image-to-image" else 2e-3)
        assert difference.unequal == 0
