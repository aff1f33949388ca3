"""Configs of tasks on text, tables, chats and sound, as they are but for model and data."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipemill
from tests.config_data_text import CONFIG_DATA

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.parametrize("task", CONFIG_DATA)
def test_config(models, tmp_path, task):
    model, data = CONFIG_DATA[task](models, tmp_path)
    report = pipemill.run(
        str(CONFIGS / f"{task}.yaml"),
        model=model,
        input=data,
        output={"path": str(tmp_path / "out"), "max_errors": None, "on_error": "raise"},
        actors={"placement": "local"},
    )
    assert report.done == report.rows > 2
