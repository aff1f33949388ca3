"""Tokenize the texts of several tasks once, where their tokenizers are equal."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.task import LoadedTask

from .token_ranges import concatenate_ranges
from .windows import WindowTokenizer
from .word_table import WordTable, WordTokens


class SharedWords:
    """A word table of several tasks. It remembers the texts that a thread asked for last.

    A later task of a split asks for the same texts, or for some of them.
    """

    def __init__(self, table: WordTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._last = threading.local()

    def tokenize(self, texts: pa.Array) -> WordTokens:
        """Tokenize texts as the table does."""
        remembered: tuple[pa.Array, WordTokens] | None = getattr(self._last, "value", None)
        if remembered is not None:
            places = pc.index_in(texts, remembered[0])
            if not places.null_count:
                return _take(remembered[1], places.to_numpy())
        with self._lock:
            tokens = self._table.tokenize(texts)
        self._last.value = texts, tokens
        return tokens


def _take(tokens: WordTokens, places: np.ndarray) -> WordTokens:
    counts = tokens.counts[places]
    starts = (np.cumsum(tokens.counts) - tokens.counts)[places]
    own = concatenate_ranges(starts, counts)
    spans = None if tokens.spans is None else tokens.spans[own]
    return WordTokens(tokens.ids[own], counts, tokens.known[places], spans)


@dataclass(frozen=True)
class _Backend:
    """A `tokenizers.Tokenizer` that only the shared table calls: those of tasks have own locks."""

    backend_tokenizer: Any


def share_words(tasks: Iterable[LoadedTask]) -> None:
    """Let tasks whose tokenizers give equal ids share one word table."""
    shared: dict[tuple[str, bool], SharedWords] = {}
    for task in tasks:
        windows = getattr(task, "window_tokenizer", None)
        if isinstance(windows, WindowTokenizer) and isinstance(windows.words, WordTable):
            backend = windows.tokenizer.backend_tokenizer
            backend.no_truncation()  # which a call leaves behind, and sets again
            backend.no_padding()
            key = backend.to_str(), windows.words.has_spans
            if key not in shared:
                own = _Backend(copy.deepcopy(backend))
                shared[key] = SharedWords(replace(windows.words, tokenizer=own))
            words = shared[key]
            task.window_tokenizer = replace(windows, words=words)  # type: ignore[attr-defined]
