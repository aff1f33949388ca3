"""No job hangs for want of CPUs: with any number of actors it runs, or says what to change."""

from __future__ import annotations

import json
import subprocess
import sys

PATIENCE_S = 240  # far more than it takes; a hang is what must not be

CASES = {
    1: [
        ({"min": 4, "max": 4}, None),
        ({"placement": "staged", "max": 4}, "set actors.num_cpus to 0.5 or less"),
        ({"placement": "staged", "max": 4, "num_cpus": 0.5}, None),
        ({"num_cpus": 2}, "set actors.num_cpus to 1 or less"),
        ({"num_gpus": 1}, "set actors.num_gpus to 0"),
    ],
    2: [
        # As much as a task: Ray would fuse all three operators into the actors.
        ({"placement": "staged", "min": 2, "max": 64}, None),
    ],
}


def test_runs_or_says_what_to_change(tmp_path):
    cases = {str(cpus): [actors for actors, _ in own] for cpus, own in CASES.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.run_on_cpus", str(tmp_path), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    expected = [case for own in CASES.values() for case in own]
    assert len(said) == len(expected), done.stderr
    for (actors, error), got in zip(expected, said, strict=True):
        if error is None:
            assert got == {"rows": 200}, actors
        else:
            assert error in got["error"]
