"""Recognize a folder of static embeddings by its JSON files: model2vec's, or a module's.

This needs neither torch nor transformers: the driver reads the same as the workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .sentence_transformers_files import (
    MODULES,
    find_first_module,
    is_model2vec,
    join_path,
)

MODULE = "StaticEmbedding"  # of sentence-transformers
# Tokens of a text where config.json does not say how many.
_MODEL2VEC_LENGTH = 512


@dataclass(frozen=True, kw_only=True)
class StaticFolder:
    """Where static embeddings are, and which tokens of a text they are taken for.

    Attributes:
        folder: with the tokenizer and the weights, in the model's folder; "" for that itself.
        is_model2vec: whether the vectors are those of `model2vec.StaticModel.encode`, which skips
            unknown tokens; else those of sentence-transformers, which does not.
        max_length: the most tokens of a text; None for all.
        normalizes: whether config.json asks for vectors of length 1.
    """

    folder: str = ""
    is_model2vec: bool = False
    max_length: int | None = None
    normalizes: bool = False

    def __str__(self) -> str:
        kind = "static embeddings" + (" (model2vec)" if self.is_model2vec else "")
        return kind if self.max_length is None else f"{kind}, at most {self.max_length} tokens"


def find_static_folder(files: Mapping[str, Any]) -> StaticFolder | None:
    """Return how a model's folder holds static embeddings; None if it holds another model.

    Args:
        files: JSON files of the model's folder, by name.

    Raises:
        ValueError: a file does not hold what it should.
    """
    folder = ""
    if MODULES in files:
        module, folder = find_first_module(files[MODULES])
        if module != MODULE:
            return None
    config = files.get(join_path(folder, "config.json"))
    if config is None:  # only model2vec writes one
        return StaticFolder(folder=folder) if MODULES in files else None
    if MODULES not in files and not is_model2vec(config):
        return None
    length = config.get("max_length", _MODEL2VEC_LENGTH)
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ValueError(f"config.json has the max_length {length!r}, not a number of tokens")
    return StaticFolder(
        folder=folder,
        is_model2vec=True,
        max_length=length,
        normalizes=bool(config.get("normalize")),
    )
