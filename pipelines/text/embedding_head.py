"""What a folder of sentence-transformers does to a vector after pooling: Dense, LayerNorm, …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .sentence_transformers_config import Dense, EmbeddingRecipe, LayerNorm, Normalize, Truncate

# Where the weights of such a module may lie; the second is a pickle.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class EmbeddingHead:
    """Applies a recipe's steps to pooled vectors, on the CPU: windows are pooled there, too."""

    def __init__(self, recipe: EmbeddingRecipe, find: Callable[[str], Path | None]) -> None:
        self.steps = list(_load_steps(recipe, find))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Shape (rows, width) in, (rows, width of the recipe) out."""
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def _load_steps(
    recipe: EmbeddingRecipe, find: Callable[[str], Path | None]
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    for step in recipe.steps:
        if isinstance(step, Normalize):
            yield normalize
        elif isinstance(step, Truncate):
            yield _make_truncation(step.width)
        elif isinstance(step, LayerNorm):
            yield _make_layer_norm(_load_weights(step.folder, find))
        elif isinstance(step, Dense):
            yield _make_dense(step, _load_weights(step.folder, find))


def normalize(vectors: np.ndarray) -> np.ndarray:
    """The vectors scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _make_truncation(width: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda vectors: vectors[:, :width]


def _load_weights(folder: str, find: Callable[[str], Path | None]) -> dict[str, Any]:
    """The module's tensors, by name. The job is asked beforehand whether it allows a pickle."""
    import torch
    from safetensors.torch import load_file

    for name in WEIGHTS:
        file = find(f"{folder}/{name}")
        if file is not None and file.suffix == ".safetensors":
            return {key: value.float() for key, value in load_file(file).items()}
        if file is not None:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
            return {key: value.float() for key, value in tensors.items()}
    raise ValueError(f"the module {folder} has no weights: there is no {folder}/{WEIGHTS[0]}")


def _make_dense(step: Dense, weights: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    activation = getattr(torch.nn, step.activation)()

    def apply(vectors: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(np.array(vectors, dtype=np.float32))
            out = torch.nn.functional.linear(
                given, weights["linear.weight"], weights.get("linear.bias")
            )
            out = activation(out)
            if step.residual:
                side = weights.get("residual.weight")
                out = out + (given if side is None else torch.nn.functional.linear(given, side))
            return out.numpy()

    return apply


def _make_layer_norm(weights: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    scale, shift = weights["norm.weight"], weights["norm.bias"]

    def apply(vectors: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(np.array(vectors, dtype=np.float32))
            return torch.nn.functional.layer_norm(given, scale.shape, scale, shift).numpy()

    return apply
