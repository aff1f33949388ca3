"""These tests need a GPU, and are skipped without one: `pytest tests/gpu`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items):
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))
