"""The code that a job on a cluster runs, and what must be installed there."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pipemill

# The folders of a checkout that are sub-packages of an installed pipemill.
FOLDERS = ("jobs", "pipelines", "actors", "configs")
_NO_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")


def copy_package(folder: Path) -> Path:
    """Copy this pipemill into a folder as it would be installed, and return its path there.

    Ray's own way for a wheel (`py_modules` with a .whl) installs what it requires again on each
    node, torch included.
    """
    source, target = Path(pipemill.__file__).parent, folder / "pipemill"
    shutil.copytree(source, target, ignore=_NO_CODE)
    for name in FOLDERS:
        if not (source / name).is_dir():
            shutil.copytree(source.parent / name, target / name, ignore=_NO_CODE)
    return target


def list_requirements() -> list[str]:
    """Return the libraries that pipemill needs, as "NAME>=VERSION"."""
    try:
        requirements = requires("pipemill") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return []
    plain = [text.replace(" ", "") for text in requirements if ";" not in text and ">=" in text]
    return [re.sub(r"\[.*?\]", "", text) for text in plain]
