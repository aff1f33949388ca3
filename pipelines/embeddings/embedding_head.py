"""The steps of a sentence-transformers folder after pooling: Dense, LayerNorm, Normalize, …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .embedding_recipe import Dense, EmbeddingRecipe, LayerNorm, Normalize, Truncate

# The files that may hold a module's weights; the second is a pickle.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class EmbeddingHead:
    """A recipe's steps over pooled vectors, on the CPU, where windows are pooled, too."""

    def __init__(self, recipe: EmbeddingRecipe, find: Callable[[str], Path | None]) -> None:
        """Load the steps' weights.

        Args:
            recipe: the recipe to follow.
            find: finds a file of the model's folder; None for one that it does not have.
        """
        self.steps = list(_load_steps(recipe, find))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Apply the steps to shape (rows, width), and return shape (rows, width of the recipe)."""
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
    """Scale each vector to length 1, shape (rows, width)."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _make_truncation(width: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda vectors: vectors[:, :width]


def _load_weights(folder: str, find: Callable[[str], Path | None]) -> dict[str, Any]:
    """Load a module's tensors, by name.

    The driver has already checked whether the job allows a pickle.
    """
    import torch
    from safetensors.torch import load_file

    for name in WEIGHTS:
        file = find(f"{folder}/{name}")
        if file is not None and file.suffix == ".safetensors":
            return {key: value.float() for key, value in load_file(file).items()}
        if file is not None:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
            return {key: value.float() for key, value in tensors.items()}
    raise ValueError(
        f"the module {folder} has no weights: the model's folder needs {folder}/{WEIGHTS[0]}"
    )


def _make_dense(step: Dense, weights: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    activation = getattr(torch.nn, step.activation)()

    def apply(vectors: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = torch.from_numpy(np.array(vectors, dtype=np.float32))
            outputs = torch.nn.functional.linear(
                inputs, weights["linear.weight"], weights.get("linear.bias")
            )
            outputs = activation(outputs)
            if step.residual:
                side = weights.get("residual.weight")
                skip = inputs if side is None else torch.nn.functional.linear(inputs, side)
                outputs = outputs + skip
            return outputs.numpy()

    return apply


def _make_layer_norm(weights: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    scale, shift = weights["norm.weight"], weights["norm.bias"]

    def apply(vectors: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = torch.from_numpy(np.array(vectors, dtype=np.float32))
            return torch.nn.functional.layer_norm(inputs, scale.shape, scale, shift).numpy()

    return apply
