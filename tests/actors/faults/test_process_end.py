"""SIGTERM to a worker, as when its machine is taken away, is no death of its split."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipemill.actors.faults import process_end
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.faults.attempts import track_attempt
from pipemill.actors.faults.process_end import BROKEN, TERMINATED, end_this_process, set_replaceable
from pipemill.actors.storage.store import Store

PART = "part-00000000-0123456789ab.parquet"


def work(folder: str, replaceable: bool, way: str) -> None:
    """A worker at a split, in a separate process."""
    set_replaceable(replaceable)
    with track_attempt(AttemptFiles(Store(folder), "run"), PART):
        print("at work", flush=True)
        if way == "lost":
            raise RuntimeError("CUDA error: unspecified launch failure")
        time.sleep(600)


def start(folder: Path, replaceable: bool, way: str) -> subprocess.Popen[str]:
    code = f"from {__name__} import work; work({str(folder)!r}, {replaceable}, {way!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize(
    ("replaceable", "way", "status", "says", "left"),
    [
        (True, "term", TERMINATED, "drops the split at hand", 0),
        (False, "term", -signal.SIGTERM, "", 1),  # of the user's process, whose handlers stay
        (True, "lost", BROKEN, "ends itself: RuntimeError: CUDA error: unspecified launch", 1),
        (False, "lost", 1, "Traceback", 0),
    ],
)
def test_what_a_process_leaves_behind(tmp_path, replaceable, way, status, says, left):
    process = start(tmp_path, replaceable, way)
    if way == "term":
        process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert says in said
    files = AttemptFiles(Store(str(tmp_path)), "run")
    assert len(files.names()) == left
    assert files.dead_attempts(files.names()) == files.names()
    reason = ["RuntimeError: CUDA error: unspecified launch failure"]
    assert files.reasons(files.names()) == (reason if status == BROKEN else [])


def test_this_process_is_not_replaceable():
    assert not process_end.is_replaceable()
    end_this_process("nothing", BROKEN)
