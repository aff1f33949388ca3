"""`python -m pipemill.jobs.VERB`: the module of a verb as a program."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def run_verb(file: str) -> None:
    """Run the command of a verb, and end this process. file: of the verb's module."""
    sys.argv.insert(1, Path(file).stem)
    runpy.run_module("pipemill", run_name="__main__")
