"""The time that `pipemill plan` says beside that of the run.

    python -m benchmarks.estimates.run_time [--rows 300 3000] [--rounds 3]

Texts of natural lengths through a model of 22 million parameters, each as a whole command, `plan`
and `run` in turn. Prints a line per round, and the median of the ratios: run / plan.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..whole_run import write_model, write_rows


def call(verb: str, folder: Path, rows: int, *flags: str) -> tuple[dict, float]:
    """Run a command; return its line of JSON, and the seconds it took."""
    job = [
        *("--task", "text-classification", "--model", str(folder / "model")),
        *("--input", str(folder / str(rows)), "--column", "text=text"),
    ]
    started = time.perf_counter()
    command = [sys.executable, "-m", "pipemill", verb, *job, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def compare(folder: Path, rows: int) -> float:
    """Plan and run a job; return how much longer than planned it ran."""
    plan = call("plan", folder, rows, "--rows", "500", "--seconds", "3")[0]["run"]
    out = folder / "out"
    _, seconds = call("run", folder, rows, "--output", str(out))
    shutil.rmtree(out)
    inside = "" if plan["least"] <= seconds <= plan["most"] else ", outside"
    print(
        f"{rows:,} rows, {plan['placement']}, {plan['actors']} actors: planned "
        f"{plan['expected']:.1f} s ({plan['least']:.1f} to {plan['most']:.1f}), ran "
        f"{seconds:.1f} s: {seconds / plan['expected']:.2f}{inside}",
        flush=True,
    )
    return seconds / plan["expected"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 3000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", "classification")
        for rows in given.rows:
            write_rows(folder / str(rows), "classification", rows)
        for rows in given.rows:
            ratios = [compare(folder, rows) for _ in range(given.rounds)]
            print(f"{rows:,} rows: {statistics.median(ratios):.2f} times what was planned")


if __name__ == "__main__":
    main()
