"""Make the references anew: `PYTHON -m tests.references.make_references` in the checkout's root.

PYTHON has transformers 4.57.6, torch and pillow. Each `make_TASK.py` beside this file writes the
models and the answers of its task.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import transformers

if __name__ == "__main__":
    if transformers.__version__ != "4.57.6":
        raise SystemExit(f"transformers 4.57.6 is the truth, not {transformers.__version__}")
    for file in sorted(Path(__file__).parent.glob("make_*.py")):
        if file.stem != "make_references":
            print(file.stem)
            import_module(f"tests.references.{file.stem}").make()
