"""No job hangs for want of CPUs: with any number of actors it runs, or says what to change."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.planning.sampling.infer_columns import infer_columns

from pipemill.errors import ConfigError
from tests.support import run_on_cpus

PATIENCE_S = 240  # far more than it takes; a hang is what must not be

# On a Ray of one CPU.
CASES = [
    ({"min": 4, "max": 4}, None),
    ({"placement": "staged", "max": 4}, "set actors.num_cpus to 0.5 or less"),
    ({"placement": "staged", "max": 4, "num_cpus": 0.5}, None),
    ({"num_cpus": 2}, "set actors.num_cpus to 1 or less"),
    ({"num_gpus": 1}, "set actors.num_gpus to 0"),
]


def test_runs_or_says_what_to_change(tmp_path):
    cases = json.dumps([actors for actors, _ in CASES])
    done = subprocess.run(
        [sys.executable, "-m", run_on_cpus.__name__, str(tmp_path), cases],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(said) == len(CASES), done.stderr
    for (actors, error), got in zip(CASES, said, strict=True):
        if error is None:
            assert got == {"rows": 200}, actors
        else:
            assert error in got["error"]


def test_a_sample_that_has_no_room_is_refused_too(tmp_path, ray_session):
    attempts = AttemptFiles(Store(str(tmp_path)), "run")
    actors = ActorsSection(num_gpus=0, num_cpus=8)
    with pytest.raises(ConfigError, match="set actors.num_cpus to 2 or less"):
        infer_columns(run_on_cpus.LoadLengths(), None, [], "fused", actors, attempts)


def test_three_operators_share_two_cpus(tmp_path, ray_session):
    # As much as a task: Ray would fuse all three operators into the actors.
    actors = {"placement": "staged", "min": 2, "max": 64}
    run_on_cpus.write_input(str(tmp_path))
    assert run_on_cpus.run(str(tmp_path), "out", actors) == 200
