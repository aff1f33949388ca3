"""Say to `datasets` which files of an output are its rows."""

from __future__ import annotations

from .ledger import Ledger

# `datasets` reads this file like the YAML of a README.md. Other readers skip its name, which
# starts with a dot, but would take a README.md for a part.
CARD = ".huggingface.yaml"
_YAML = b"""\
# Written by pipemill: which files `datasets.load_dataset` reads.
configs:
- config_name: default
  data_files:
  - split: train
    path: part-*.parquet
"""


def write_card(ledger: Ledger) -> None:
    """Write the card into the output, unless there is one."""
    if ledger.read(CARD) is None:
        ledger.write(CARD, _YAML)
