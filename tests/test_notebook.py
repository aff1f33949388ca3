"""Each notebook runs from its first cell to its last, in its own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
# What must be seen in the outputs.
SHOWN = {
    "first_run": [
        "200 (200 done, 0 dead)",
        "% of the topics are right",
        "did you mean 'top_k'?",
        "5 rows",
    ],
    "long_documents": ["40 (40 done, 0 dead)", "True True", "start"],
    "on_a_cluster": ["http://127.0.0.1:", "Ray: joined", "200 (200 done, 0 dead)"],
}


def run(name: str, folder: Path) -> str:
    """Run a notebook in a copy of its folder, and return what it shows."""
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("made"), dirs_exist_ok=True)
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [out for cell in cells for out in cell.outputs]
    return "\n".join(
        f"{out.get('data', {}).get('text/html', out.get('data', {}).get('text/plain', ''))}"
        f"{out.get('text', '')}"
        for out in shown
    )


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_in_its_folder(name, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = run(name, tmp_path)
    for part in SHOWN[name]:
        assert part in text
    assert "False" not in text
    assert "TqdmWarning" not in text
    assert "ipywidgets" not in text
    assert "Traceback" not in text


def test_these_are_all_notebooks():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), "stored outputs grow old"
