"""The cache of exported graphs: one process of a machine builds each, the others wait for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pipemill.actors.storage.remote_folder import find_cache_folder

# The version of what is written: another one is another graph.
_LAYOUT = 1


def find_graph(key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of a graph, which is built if it is not there.

    Args:
        key: tells the graph from all others, see `digest_graph`.
        build: writes the graph to a folder.
    """
    from filelock import FileLock

    folder = find_cache_folder().parent / "graphs" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            part = folder.with_name(f"{key}.part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir()
            try:
                build(part)
                os.rename(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


def digest_graph(model: Any, says: Any, packages: tuple[str, ...], arrays: list[np.ndarray]) -> str:
    """Return a short digest of all that decides a graph.

    Args:
        model: a model of transformers, with its weights.
        says: what else decides it, as JSON.
        packages: those that make the graph, beside torch and transformers.
        arrays: what the graph is calibrated with.
    """
    import torch

    versions = {name: metadata.version(name) for name in ("torch", "transformers", *packages)}
    config = model.config.to_json_string(use_diff=False)
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([_LAYOUT, type(model).__name__, config, says, versions]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
