"""Folders of sentence-transformers, put together of a transformer and of what is beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).parent / "sentence_transformers"
BASES, FOLDERS, VECTORS = HERE / "bases", HERE / "folders", HERE / "vectors.json"


def build(name: str, folder: Path) -> Path:
    """Write the whole folder of that name, weights included."""
    base = BASES / (FOLDERS / name / "base").read_text().strip()
    lower = (FOLDERS / name / "0_Transformer").is_dir()
    shutil.copytree(base, folder / "0_Transformer" if lower else folder)
    ignored = shutil.ignore_patterns("base")
    shutil.copytree(FOLDERS / name, folder, dirs_exist_ok=True, ignore=ignored)
    return folder
