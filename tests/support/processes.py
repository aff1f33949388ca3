"""Processes that tests start and must be rid of, with everything that descends from them."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import psutil

MARK = "PIPEMILL_TEST_MARK"


def marked_environment() -> tuple[str, dict[str, str]]:
    """A mark, and an environment that carries it: Ray's daemons leave the process group, but
    keep the environment."""
    mark = uuid.uuid4().hex
    # The folder of this interpreter first: Ray starts its workers by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return mark, {**os.environ, MARK: mark, "PATH": path}


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_marked(mark: str) -> None:
    for process in marked(mark):
        try:
            process.kill()
        except psutil.Error:
            continue
