"""What is written of who tries which split, and what is made of what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import ray
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.faults.attempts import (
    AttemptError,
    SplitGivenUp,
    has_suspects,
    run_attempt,
    track_attempt,
)
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.planning.sampling import infer_columns

from pipemill.errors import RunError

PART = "part-00000000-0123456789ab.parquet"


@pytest.fixture
def files(tmp_path):
    return AttemptFiles(Store(str(tmp_path)), "run")


def die(path, what: str = PART, times: int = 1) -> None:
    """Processes that die within an attempt."""
    code = (
        "import sys; from pipemill.actors.faults.attempt_files import AttemptFiles\n"
        "from pipemill.actors.storage.store import Store\n"
        "for _ in range(int(sys.argv[3])): AttemptFiles(Store(sys.argv[1]), '').begin(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(path), what, str(times)], check=True)


def way(files) -> str:
    """How a worker that starts now does the split."""
    try:
        return run_attempt(files, files.names(), PART, lambda: "usual", lambda: "isolated")
    except SplitGivenUp as error:
        return str(error)


def test_an_attempt_is_there_while_it_lasts_and_after_its_process_died(files, tmp_path):
    assert files.names() == []
    with track_attempt(files, PART):
        (name,) = files.names()
        assert name.startswith(f"{PART}.")
        assert files.dead_attempts([name]) == []
    assert files.names() == []
    with pytest.raises(ValueError), track_attempt(files, PART):
        raise ValueError
    assert files.names() == []
    die(tmp_path)
    (left,) = files.names()
    assert files.dead_attempts([left, "no such"]) == [left]
    files.end([left, "no such"])
    assert files.names() == []


def test_a_split_is_isolated_after_two_deaths_and_left_after_three_more(files, tmp_path):
    die(tmp_path)
    assert way(files) == "usual"
    assert not has_suspects(files.names())
    with track_attempt(files, PART):
        assert way(files) == "usual"  # what lives is no death
    die(tmp_path)
    assert has_suspects(files.names())
    die(tmp_path, f"{PART}.isolated", times=2)
    assert way(files) == "isolated"
    assert files.names() == []  # it is done, and the deaths are forgotten
    die(tmp_path, f"{PART}.isolated", times=3)
    assert "workers died 3 times" in way(files)


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "_pipemill").write_text("no folder")
    with pytest.raises(AttemptError, match="_pipemill/attempts could not be written: "):
        AttemptFiles(Store(str(tmp_path)), "").begin(PART)


def test_a_sample_is_of_other_rows_after_its_process_died(files, tmp_path, monkeypatch):
    asked = []

    def schema_of(load, source, splits, window):
        asked.append(window)
        return b"schema", None

    monkeypatch.setattr(infer_columns, "_infer_here", schema_of)

    def ask():
        return infer_columns.infer_columns(None, None, [], "local", None, files)  # type: ignore[arg-type]

    for deaths, window in [(0, (0, 32)), (1, (0, 8)), (3, (16, 8))]:
        die(tmp_path, "sampling", deaths)
        assert ask() == b"schema"
        assert asked[-1] == window
        assert files.names() == []
    die(tmp_path, "sampling", 5)
    with pytest.raises(RunError, match=r"on each of the first rows.*output\.schema"):
        ask()


def test_a_sample_without_ray_whose_process_dies_is_given_up_after_all_rows(files):
    load, actors = partial(os._exit, 9), ActorsSection(num_gpus=0)
    with pytest.raises(RunError, match="died on each of the first rows"):
        infer_columns.infer_columns(load, None, [], "single", actors, files)  # type: ignore[arg-type]


def test_a_sample_is_computed_again_after_its_node_died(files, monkeypatch, ray_session):
    died = []

    def get(sample):
        if len(died) < 2:
            died.append(sample)
            raise ray.exceptions.NodeDiedError("the node is dead")
        return b"schema", None

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(infer_columns, "with_credentials", lambda load, actors: load)
    actors = ActorsSection(num_gpus=0)

    def ask():
        return infer_columns.infer_columns(None, None, [], "fused", actors, files)  # type: ignore[arg-type]

    assert ask() == b"schema"
    monkeypatch.setattr(infer_columns, "_NODES", 2)
    died.clear()
    with pytest.raises(RunError, match="no sample could be computed: the node is dead"):
        ask()
