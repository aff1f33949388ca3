"""Make the tests' truth: tiny models, and what transformers 4.57.6 answers with them.

The tasks that transformers 5 removed are compared with these answers. To make them again:

    python3.11 -m venv /tmp/v457
    /tmp/v457/bin/pip install transformers==4.57.6 'datasets<5' 'huggingface_hub<1' 'numpy==2.4.6' \
        torch==2.13.0 pillow sentencepiece
    HF_HUB_OFFLINE=1 /tmp/v457/bin/python -m tests.references.make_references [NAME …]

from the checkout's root. Each `make_NAME.py` beside this file writes `NAME.json` and its models,
weights included: the same seed gives other weights in another version. Names limit what is made.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    import transformers

    if not transformers.__version__.startswith("4.57."):
        raise SystemExit(f"needs transformers 4.57.6, not {transformers.__version__}")
    for path in sorted(HERE.glob("make_*.py")):
        name = path.stem.removeprefix("make_")
        if name != "references" and (not names or name in names):
            import_module(f"tests.references.{path.stem}").make()


if __name__ == "__main__":
    main(sys.argv[1:])
