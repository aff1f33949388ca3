"""Runs the notebooks with the wheel alone, from a copy of their folder; `check.sh` runs it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"


def main() -> int:
    failed = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        check = "import sys, pipemill; assert pipemill.__file__.startswith(sys.prefix)"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(check))
        resources = {"metadata": {"path": str(FOLDER)}}
        try:
            NotebookClient(notebook, timeout=240, resources=resources).execute()
        except Exception as error:
            failed += 1
            print(f"FAILED {path.name}: {error}", flush=True)
        else:
            print(f"ok {path.name} ({time.monotonic() - started:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
