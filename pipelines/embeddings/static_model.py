"""The tokenizer and the table of vectors of static embeddings: numpy, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..loading.model_files import ModelFiles
from ..text.token_ranges import concatenate_ranges
from ..text.word_table import WordTable, build_word_table
from .sentence_transformers_files import join_path
from .static_folder import StaticFolder

# Texts that are summed up at once: a core's cache holds their sums.
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Device:
    """Where the vectors are, as a pipeline says it."""

    type: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """The tokens of texts.

    Attributes:
        ids: of all texts, one after the other, shape (tokens,).
        counts: tokens of each text, shape (texts,).
        lost: tokens of each text that were cut off, shape (texts,).
    """

    ids: np.ndarray
    counts: np.ndarray
    lost: np.ndarray


class StaticModel:
    """Turns texts into token ids, and these into one mean vector for each text.

    Attributes:
        table: the vector of each token id, weighted, shape (tokens, width), float32.
        backend_tokenizer: a `tokenizers.Tokenizer`.
        device: always the CPU.
    """

    device = Device()

    def __init__(self, folder: StaticFolder, table: np.ndarray, tokenizer: Any) -> None:
        self.folder, self.table, self.backend_tokenizer = folder, table, tokenizer
        self._truncation = None if folder.is_model2vec else tokenizer.truncation
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokens = tokenizer.get_vocab()
        highest = max(tokens.values(), default=-1)
        if highest >= len(table):
            raise ValueError(
                f"the tokenizer has the token id {highest}, beyond the {len(table)} static "
                "embeddings: the tokenizer and the weights do not belong together"
            )
        self._unknown = _find_unknown(tokenizer, tokens) if folder.is_model2vec else None
        self._token_length = int(np.median([len(token) for token in tokens]))
        self._words: WordTable | None = build_word_table(self)

    def find_max_length(self, folder: StaticFolder) -> int | None:
        """Return the most tokens of a text: a folder's, or else the tokenizer's."""
        if folder.max_length is not None or self._truncation is None:
            return folder.max_length
        return int(self._truncation["max_length"])

    def tokenize(self, texts: pa.Array, max_length: int | None) -> TextTokens:
        """Tokenize texts as the folder's library does. max_length: the most tokens of a text."""
        texts = texts.cast(pa.large_string())
        lengths = None
        if max_length is not None and self.folder.is_model2vec:
            # model2vec first cuts a text to the characters that so many tokens usually have.
            most = max_length * self._token_length
            long = np.flatnonzero(pc.utf8_length(texts).to_numpy() > most)
            if len(long):
                whole = self._tokenize(texts.take(pa.array(long)))[1]
                texts = pc.utf8_slice_codeunits(texts, 0, most)
                lengths = long, whole
        ids, counts = self._tokenize(texts)
        total = counts.copy()
        if lengths is not None:
            total[lengths[0]] = lengths[1]
        if max_length is not None and (counts > max_length).any():
            starts = np.cumsum(counts) - counts
            counts = np.minimum(counts, max_length)
            ids = ids[concatenate_ranges(starts, counts)]
        lost = total - counts
        if self._unknown is not None and (known := ids != self._unknown).sum() < len(ids):
            of_text = np.repeat(np.arange(len(counts)), counts)[known]
            ids, counts = ids[known], np.bincount(of_text, minlength=len(counts))
        return TextTokens(ids=ids, counts=counts, lost=lost)

    def _tokenize(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of whole texts, one after the other, and the tokens of each."""
        if self._words is None:
            return self._encode(texts)
        tokens = self._words.tokenize(texts)
        others = np.flatnonzero(~tokens.known)
        if not len(others):
            return tokens.ids, tokens.counts
        ids, counts = self._encode(texts.take(pa.array(others)))
        all_counts = tokens.counts.copy()
        all_counts[others] = counts
        starts = np.cumsum(tokens.counts) - tokens.counts
        starts[others] = len(tokens.ids) + np.cumsum(counts) - counts
        return np.append(tokens.ids, ids)[concatenate_ranges(starts, all_counts)], all_counts

    def _encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        encodings = self.backend_tokenizer.encode_batch_fast(
            texts.to_pylist(), add_special_tokens=False
        )
        lists = [encoding.ids for encoding in encodings]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.concatenate([np.zeros(0, np.int32), *(np.array(i, np.int32) for i in lists)])
        return ids, counts

    def average(self, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean vector of each text's tokens, zeros without any.

        Args:
            ids: of all texts, one after the other, shape (tokens,).
            counts: tokens of each text, shape (texts,).

        Returns:
            Shape (texts, width), float32.
        """
        starts = np.cumsum(counts) - counts
        order = np.argsort(-counts, kind="stable")
        means = np.zeros((len(counts), self.table.shape[1]), np.float32)
        for first in range(0, len(order), _TEXTS_AT_ONCE):
            texts = order[first : first + _TEXTS_AT_ONCE]
            sums = np.zeros((len(texts), self.table.shape[1]), np.float32)
            begins, longest_first = starts[texts], counts[texts]
            for place in range(longest_first[0]):  # of several texts at once: numpy's sums
                longer = int(np.searchsorted(-longest_first, -place, side="left"))
                sums[:longer] += self.table[ids[begins[:longer] + place]]
            means[texts] = sums / np.maximum(longest_first, 1)[:, None]
        return means


def _find_unknown(tokenizer: Any, tokens: dict[str, int]) -> int | None:
    """Return the id of the unknown token, by any model of `tokenizers`; None without one."""
    model = json.loads(tokenizer.to_str())["model"]
    if (number := model.get("unk_id")) is not None:  # Unigram
        return int(number)
    return tokens.get(model.get("unk_token") or "")


def load_static_model(files: ModelFiles, folder: StaticFolder) -> StaticModel:
    """Load the tokenizer and the vectors. Raise ValueError for a folder that lacks one of them."""
    from tokenizers import Tokenizer

    weights, tokenizer = (
        _find(files, join_path(folder.folder, name))
        for name in ("model.safetensors", "tokenizer.json")
    )
    return StaticModel(folder, _read_table(weights), Tokenizer.from_file(str(tokenizer)))


def _find(files: ModelFiles, name: str) -> Path:
    file = files.find(name)
    if file is None:
        raise ValueError(f"the model {files.path} has no {name}, which static embeddings need")
    return file


def _read_table(file: Path) -> np.ndarray:
    """Return the vector of each token id, with the weights that model2vec keeps beside them."""
    from safetensors.numpy import load_file

    tensors = load_file(file)
    name = next((n for n in ("embedding.weight", "embeddings") if n in tensors), None)
    if name is None:
        raise ValueError(f"{file} has no tensor 'embeddings' or 'embedding.weight'")
    table = tensors[name]
    if (mapping := tensors.get("mapping")) is not None:
        table = table[mapping]
    table = table.astype(np.float32, copy=False)
    if (weights := tensors.get("weights")) is not None:
        table = table * weights.astype(np.float32)[:, None]
    return table
