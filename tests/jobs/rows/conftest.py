"""A job whose rows come from any object, with a task that needs no model."""

from __future__ import annotations

import pytest

import pipemill
from tests.support import light


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a job over rows. output: the name of its folder."""
    light.install(monkeypatch)

    def make(rows, output="out", **more):
        base = light.job(tmp_path, ["unused"])
        folder = {**base["output"], "path": str(tmp_path / output)}
        return {**base, "input": rows, "output": folder, **more}

    return make


@pytest.fixture
def answers(job):
    """Return the rows of the output of a job over rows."""

    def run(rows, output="out", **more):
        report = pipemill.run(**job(rows, output, **more))
        assert report.dead == 0
        return pipemill.read(report.output).to_table()

    return run
