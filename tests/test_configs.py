"""Every config is run for real: with a tiny model, on tiny data of the form it expects."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import yaml
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.pipelines.registry import find_task

from tests.support import torchvision_stand_in
from tests.support.config_data import CONFIGS

FOLDER = Path(__file__).parent.parent / "configs"
NOT_RUN = {"newsgroups"}  # the demo's, which its own test runs


def test_every_config_has_data():
    assert {path.stem for path in FOLDER.rglob("*.yaml")} == set(CONFIGS) | NOT_RUN


@pytest.mark.parametrize("name", NOT_RUN)
def test_the_demos_config_is_a_job(name):
    job = build_job(FOLDER / f"{name}.yaml", [], {}, {})
    assert set(job.parameters) <= set(find_task(job.task).parameters)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_runs(models, tmp_path, monkeypatch, capsys, name):
    if name == "mask-generation":
        torchvision_stand_in.put_in(monkeypatch)
    (tmp_path / "data").mkdir()
    model, rows = CONFIGS[name](models, tmp_path / "data")
    settings = {
        "model.path": model,
        "input.path": rows,
        "output.path": str(tmp_path / "out"),
        "actors.placement": "local",
    }
    config = FOLDER / f"{name}.yaml"
    if "max_new_tokens" in yaml.safe_load(config.read_text()).get("parameters", {}):
        settings["parameters.max_new_tokens"] = 9  # a tiny model would write on to the last one
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    assert main(["run", str(config), *flags]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    letters = list((tmp_path / "out/_pipemill/dead-letter").rglob("*.parquet"))
    assert result["dead"] == 0, [ds.dataset(path).to_table().to_pylist() for path in letters]
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.num_rows == result["rows"] == result["done"] > 0
    head = config.read_text().splitlines()
    assert head[0].startswith("# "), "a config begins with what it does"
    assert yaml.safe_load(config.read_text())["task"] == name
