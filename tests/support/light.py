"""The command line with one more task, `lengths`: it needs no model, and starts in a second.

A text "bad3" fails until the parameter `healed` is 3, "die" ends the process, and "slow" takes a
millisecond. LIGHT_SLOW in the environment is how many seconds a row takes, as long as the file
LIGHT_SLOW_UNTIL is not there.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.task import Parameter
from pipemill.jobs import prepare
from pipemill.pipelines import registry
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support.lengths import Lengths


class Light(Lengths):
    parameters: Mapping[str, Parameter] = {
        "healed": Parameter(0, "int"),
        "cased": Parameter(False, "bool"),
    }

    @staticmethod
    def check(parameters):
        pass

    def __init__(self, given=None):
        super().__init__()
        self.given = given or {}

    def results(self):
        more = [("cased", pa.bool_())] if self.given.get("cased") else []
        return pa.schema([*super().results(), *more])

    def regroup(self, rows, outputs):
        texts = rows["text"].to_pylist()
        time.sleep(_seconds_a_row() * len(texts) + texts.count("slow") / 1000)
        for text in texts:
            if text == "die":
                os._exit(9)
            if text.startswith("bad") and int(text[3:]) > self.given.get("healed", 0):
                raise ValueError(f"{text} is not healed")
        table = super().regroup(rows, outputs)
        if self.given.get("cased"):
            table = table.append_column("cased", pa.array([True] * len(table)))
        return table


def _seconds_a_row() -> float:
    until = os.environ.get("LIGHT_SLOW_UNTIL")
    return 0 if until and os.path.exists(until) else float(os.environ.get("LIGHT_SLOW", 0))


def _load(self):
    return Stages(Light(json.loads(self.parameters)), dict(self.columns), TokenBudget(100))


def _no_model(load, here):
    """There is none that would have to fit the task."""


def install(patch=None) -> None:
    """patch: pytest's `monkeypatch`, which undoes it."""
    sys.modules["pipemill.pipelines.light"] = sys.modules[__name__]
    if patch is None:
        registry._TASKS["lengths"] = "light:Light"
        LoadTask.__call__ = _load
        prepare.check_fit = _no_model
    else:
        patch.setitem(registry._TASKS, "lengths", "light:Light")
        patch.setattr(LoadTask, "__call__", _load)
        patch.setattr(prepare, "check_fit", _no_model)


def save_model(folder: Path) -> str:
    """The path of a folder that passes for a model's."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return str(folder)


def job(folder: Path, texts: list[str | None], rows_per_part: int = 10, **more) -> dict:
    """A job over these texts, whose files lie in that folder."""
    save_model(folder / "model")
    if not (folder / "in.parquet").exists():
        table = pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())})
        pq.write_table(table, folder / "in.parquet")
    output = {"path": str(folder / "out"), "rows_per_part": rows_per_part, "max_errors": None}
    return {
        "task": "lengths",
        "model": str(folder / "model"),
        "input": str(folder / "in.parquet"),
        "output": {**output, **more.pop("output", {})},
        "actors": {"placement": "local"},
        **more,
    }


def start(
    verb: str, wanted: dict, folder: Path, slow: float = 0.0, under: list[str] | None = None
) -> subprocess.Popen[str]:
    """The same as a process. under: a command that starts it."""
    config = folder / f"{verb}.yaml"
    config.write_text(json.dumps(wanted))
    return subprocess.Popen(
        [*(under or []), sys.executable, "-m", "tests.support.light", verb, str(config)],
        env={**os.environ, "LIGHT_SLOW": str(slow)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    from pipemill.jobs.cli.app import main

    install()
    sys.exit(main())
