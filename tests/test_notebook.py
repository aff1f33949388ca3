"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


# One process runs all tests that share a Ray.
def test_first_run(tmp_path, monkeypatch, ray_session):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    notebook = nbformat.read(ROOT / "notebooks/first_run.ipynb", as_version=4)
    # As if started in the project's folder, but leaving nothing in it.
    for name in ("demo", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=240, resources=resources).execute()
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    text = "\n".join(
        str(out.get("data", {}).get("text/html", "")) + out.get("text", "") for out in shown
    )
    assert "150 done, 0 dead" in text
    assert "Post " in text
    assert "of the same group for" in text
