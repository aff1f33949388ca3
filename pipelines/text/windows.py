"""Texts longer than the model: cut into windows or truncated, and the windows' vectors pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.task import Parameter

from ..tasks import shared_parameters
from . import long_texts, token_chunks

# What tasks that use this take, beside parameters of their own.
PARAMETERS: Mapping[str, Parameter] = {
    "truncation": shared_parameters.truncation(False),
    "max_length": shared_parameters.count(None, least=1),
    "stride": shared_parameters.count(0),
    "add_special_tokens": Parameter(True, "bool"),
    "return_token_type_ids": Parameter(None, "bool|null"),
    "split_special_tokens": Parameter(None, "bool|null"),
    # These change no answer: what is padded is measured.
    "padding": shared_parameters.padding(False),
    "padding_side": Parameter(None, "str|null", (None, "left", "right")),
    "pad_to_multiple_of": shared_parameters.count(None, least=1),
    "return_attention_mask": Parameter(None, "bool|null"),
}
# Of these, what decides a text's tokens, and goes to the tokenizer as it is.
_TOKENIZING = ("add_special_tokens", "return_token_type_ids", "split_special_tokens")

# Of texts that are tokenized together: some hundred bytes are held for each token.
_CHARACTERS = 2**20

NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


def check(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for values of `PARAMETERS` that can't be right."""
    for name, parameter in PARAMETERS.items():
        if parameters.get(name, parameter.default) != parameter.default:
            parameter.validate(name, parameters[name])
    length, stride = parameters["max_length"], parameters["stride"]
    if length is not None and stride >= length and not truncates(parameters["truncation"]):
        raise ValueError(
            f"stride ({stride}), which two windows share, must be less than max_length ({length})"
        )


def truncates(truncation: bool | str | None) -> bool:
    """Whether that value asks for a cut text, rather than for windows."""
    return truncation not in (None, False, "do_not_truncate")


@dataclass(frozen=True, kw_only=True)
class WindowTokenizer:
    """Makes texts, or pairs of them, into chunks of at most `limit` tokens.

    A longer text becomes windows that overlap by `stride` tokens; of a pair only the first text
    is cut, and every window is followed by the whole second. With `truncation` (True, or one of
    a transformers tokenizer's names for it) the text is cut to a single chunk, as by that
    tokenizer, and the chunk's field `lost` counts the tokens that are left out.

    limit: in tokens, special ones included; None for any length.
    equal_sizes: chunks of different length must not share a micro-batch.
    keywords: more of the tokenizer's.
    """

    tokenizer: Any
    limit: int | None
    stride: int = 0
    truncation: bool | str | None = False
    equal_sizes: bool = False
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: Any, limit: int | None, settings: Mapping[str, Any]) -> WindowTokenizer:
        """settings: values of `PARAMETERS`."""
        return cls(
            tokenizer=pipeline.tokenizer,
            limit=limit,
            stride=settings["stride"],
            truncation=settings["truncation"],
            equal_sizes=token_chunks.needs_equal_sizes(pipeline),
            keywords={n: settings[n] for n in _TOKENIZING if settings[n] is not None},
        )

    def __post_init__(self) -> None:
        if self.limit is None:
            return
        room = self.limit - self._special_tokens(1)
        if room < 1:
            raise ValueError(f"max_length {self.limit} leaves no room beside the special tokens")
        if not self.truncates and self.stride >= room:
            raise ValueError(f"stride {self.stride} is not less than a window's {room} tokens")

    @property
    def truncates(self) -> bool:
        return truncates(self.truncation)

    def chunks(self, *texts: list[str]) -> pa.ListArray:
        """Chunks per text; `texts` are one list, or two of equal length: pairs.

        Raises ValueError where a text needs windows that can't be cut.
        """
        some = []
        for part in _parts(texts):
            several = [column[part] for column in texts]
            alone = len(several) == 1 and len(several[0]) == 1
            long = self._long(several[0][0]) if alone else None
            some.append(self._chunks(*several) if long is None else long)
        return pa.concat_arrays(some)

    def _long(self, text: str) -> pa.ListArray | None:
        """The chunks of a very long text, of which the tokenizer sees a piece at a time.

        None where that is not needed, or can't be.
        """
        right = self.tokenizer.truncation_side == "right" and self.truncation != "only_second"
        if self.limit is None or not right:
            return None
        tokens = long_texts.tokens_of(self.tokenizer, text, self.keywords)
        if tokens is None:
            return None
        ids, room = tokens.ids, self.limit - self._special_tokens(1)
        step = room if self.truncates else room - self.stride
        last = 0 if self.truncates else max(len(ids) - room, 0)
        starts = range(0, last + step, step) if last else (0,)
        windows = [ids[start : start + room] for start in starts]
        encoding = long_texts.surrounded(self.tokenizer, text, self.keywords, windows)
        if encoding is None:
            return None
        lost = np.array([max(len(ids) - room, 0)], np.int32) if self.truncates else None
        chunks = token_chunks.as_chunks(encoding, self.equal_sizes, lost)
        return token_chunks.per_row(chunks, np.array([len(chunks)]))

    def _chunks(self, *texts: list[str]) -> pa.ListArray:
        encoding = self._encode(texts)
        lost = self._lost(encoding, texts) if self.truncates else None
        chunks = token_chunks.as_chunks(encoding, self.equal_sizes, lost)
        # Only a slow tokenizer leaves any that are longer.
        slow = f"{type(self.tokenizer).__name__} is not a fast tokenizer and can't cut windows"
        token_chunks.check_length(chunks, self.limit, f"{slow}; set parameters.truncation to true")
        row_of_chunk = np.array(encoding.get("overflow_to_sample_mapping", range(len(chunks))))
        if self.tokenizer.truncation_side == "left" and len(chunks) > len(texts[0]):
            # Such a tokenizer begins with a text's last window.
            reading_order = np.lexsort((-np.arange(len(chunks)), row_of_chunk))
            chunks = chunks.take(pa.array(reading_order))
        return token_chunks.per_row(chunks, np.bincount(row_of_chunk, minlength=len(texts[0])))

    def _encode(self, texts: Sequence[list[str]]) -> Any:
        options: dict[str, Any] = {**self.keywords, "return_attention_mask": False}
        if self.limit is None:
            return self.tokenizer(*texts, **options)
        options["max_length"] = self.limit
        if self.truncates:
            return self.tokenizer(*texts, truncation=self.truncation, **options)
        # A slow tokenizer can't cut windows, and would truncate without a word.
        if len(texts) == 2 or not self.tokenizer.is_fast:
            whole = self.tokenizer(*texts, truncation=False, **options)
            long = np.flatnonzero(_lengths(whole) > self.limit)
            if not self.tokenizer.is_fast or not len(long):
                return whole
            self._check_room([texts[1][i] for i in long])
        options |= {"stride": self.stride, "return_overflowing_tokens": True}
        return self.tokenizer(*texts, truncation="only_first", **options)

    def _check_room(self, seconds: list[str]) -> None:
        """Raises where a tokenizer would panic: a window beside that text would not advance."""
        keywords = {**self.keywords, "add_special_tokens": False}
        tokens = int(_lengths(self.tokenizer(seconds, **keywords)).max())
        room = max((self.limit or 0) - tokens - self._special_tokens(2), 0)
        if room <= self.stride:
            raise ValueError(
                f"the second text's {tokens} tokens leave {room} of {self.limit} to windows of the "
                f"first, which overlap by {self.stride}: shorten it, or set parameters.truncation "
                "to true"
            )

    def _lost(self, encoding: Any, texts: Sequence[list[str]]) -> np.ndarray:
        if self.limit is None:
            return np.zeros(len(texts[0]), dtype=np.int32)
        return lost_tokens(self.tokenizer, encoding, texts, self.limit, self.keywords)

    def _special_tokens(self, texts: int) -> int:
        return special_tokens(self.tokenizer, texts, self.keywords)


def _parts(texts: Sequence[list[str]]) -> list[slice]:
    """Consecutive texts, or pairs, of so few characters that a tokenizer's output is no burden."""
    sizes = np.array([sum(map(len, several)) for several in zip(*texts, strict=True)])
    ends = np.cumsum(sizes)
    cuts = np.flatnonzero(np.diff(ends // _CHARACTERS)) + 1
    long = np.flatnonzero(sizes >= long_texts.LONG)  # each by itself
    edges = sorted({0, *cuts.tolist(), *long.tolist(), *(long + 1).tolist(), len(ends)})
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def special_tokens(tokenizer: Any, texts: int, keywords: Mapping[str, Any] = NO_KEYWORDS) -> int:
    """How many surround one text, or a pair."""
    added = keywords.get("add_special_tokens", True)
    return tokenizer.num_special_tokens_to_add(pair=texts == 2) if added else 0


def _lengths(encoding: Any) -> np.ndarray:
    return np.fromiter(map(len, encoding["input_ids"]), np.int32)


def lost_tokens(
    tokenizer: Any,
    encoding: Any,
    texts: Sequence[list[str]],
    limit: int,
    keywords: Mapping[str, Any] = NO_KEYWORDS,
) -> np.ndarray:
    """How many tokens truncation to `limit` cut from each of `texts`, shape (texts,).

    encoding: what the tokenizer, with these keywords, made of the texts; one list, or two: pairs.
    """
    kept = _lengths(encoding)
    lost = np.zeros(len(kept), dtype=np.int32)
    full = np.flatnonzero(kept >= limit)
    if len(texts) == 1 and encoding.is_fast:
        special = special_tokens(tokenizer, 1, keywords)
        for i in full:
            lost[i] = sum(len(rest) - special for rest in encoding[int(i)].overflowing)
    elif len(full):
        # No tokenizer says it, so those that may have been cut are measured whole.
        whole = tokenizer(
            *[[column[i] for i in full] for column in texts],
            **{**keywords, "return_attention_mask": False},
        )
        lost[full] = _lengths(whole) - kept[full]
    return lost


def vectors_with_counts(vectors: np.ndarray, sizes: np.ndarray) -> pa.StructArray:
    """One output per chunk: its vector, of shape (chunks, width), and its number of tokens."""
    columns = [token_chunks.vectors(vectors), pa.array(sizes)]
    return pa.StructArray.from_arrays(columns, names=["vector", "tokens"])


def pool(vectors: np.ndarray, tokens: np.ndarray, counts: np.ndarray, rule: str) -> np.ndarray:
    """The vectors of each row's windows as one, shape (rows, width).

    rule: "mean", weighted by the windows' tokens; "max" in each dimension; the "last" window's.
    vectors: shape (windows, width), in the rows' order; tokens: shape (windows,).
    counts: windows per row, shape (rows,), none of them 0.
    """
    if len(counts) == len(vectors):  # every row is a single window
        return vectors
    starts = np.cumsum(counts) - counts
    if rule == "max":
        return np.maximum.reduceat(vectors, starts)
    if rule == "last":
        return vectors[starts + counts - 1]
    weights = tokens[:, None].astype(np.float32)
    return np.add.reduceat(vectors * weights, starts) / np.add.reduceat(weights, starts)
