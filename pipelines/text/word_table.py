"""Tokenize texts word by word: a table of words that were seen before is faster than a tokenizer.

A table is only used with tokenizers that give a word between spaces the same tokens in every text.
That follows from their parts, and is checked for every word when the tokenizer is asked for it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .token_ranges import concatenate_ranges

# Words that the table holds before it starts again: some 30 MB.
_MOST_WORDS = 2**17
# Words that the tokenizer is asked for at first, and then one of so many that are looked up. With
# more, as in texts of random numbers, asking for words costs more than tokenizing whole texts.
_FREE_WORDS, _SEEN_PER_NEW = 2**14, 8
_MOST_SKIPS = 63
_LONGEST_WORD = 64  # characters
_MOST_PATTERNS = 8

_UNSAFE, _MISSING, _EMPTY = -1, -2, 0

# Ids, and where each token is; no places where the table does not tell them.
Tokens = tuple[list[int], list[tuple[int, int]]]
# Parts of a normalizer that change characters whatever stands beyond the next space.
_NORMALIZERS = {
    "spaces": {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
    | {"Precompiled"},
    # What removes a character, or makes a space of it, would make two spaces meet.
    "leading space": {"Lowercase", "NFC", "NFD"},
}


class HasBackend(Protocol):
    """A fast tokenizer of transformers, or what takes its place."""

    @property
    def backend_tokenizer(self) -> Any:
        """Return the `tokenizers.Tokenizer`."""


class WordTokenizer(Protocol):
    """What tokenizes texts word by word: a table, or what several tasks share."""

    def tokenize(self, texts: pa.Array) -> WordTokens:
        """Tokenize strings without nulls, as far as they consist of words that are safe."""


# Where words begin: "spaces" between words have no tokens; a "leading space" belongs to its word.
Boundary = Literal["spaces", "leading space"]


@dataclass(frozen=True)
class WordTokens:
    """The tokens of texts, without special ones.

    Attributes:
        ids: of all texts, one after the other, shape (tokens,).
        counts: tokens of each text, shape (texts,); 0 for a text that is not known.
        known: which texts were tokenized, shape (texts,).
        spans: the first character of each token in its text, and the one after its last, shape
            (tokens, 2); None where the table does not tell them.
    """

    ids: np.ndarray
    counts: np.ndarray
    known: np.ndarray
    spans: np.ndarray | None = None


@dataclass
class WordTable:
    """The token ids of words.

    Attributes:
        tokenizer: what is asked for new words.
        boundary: where words begin.
        whole: texts with one of these are not cut into words.
        has_spans: whether it tells where in a text each token is.
    """

    tokenizer: HasBackend
    boundary: Boundary
    whole: tuple[str, ...] = ()
    has_spans: bool = False
    _learned: int = 0
    _seen: int = 0
    # Calls that are left to the tokenizer, now and after the next one with too many new words.
    _skips: int = 0
    _next_skips: int = 0
    # By word, with its leading space if that belongs to it. Number 0 has no tokens.
    _numbers: dict[str, int] = field(default_factory=lambda: {"": _EMPTY})
    _ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    _ends: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    # The characters of each word, and where in it its tokens are; empty without spans.
    _widths: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    _spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))

    def tokenize(self, texts: pa.Array) -> WordTokens:
        """Tokenize strings without nulls, as far as they consist of words that are safe."""
        if self._skips:
            self._skips -= 1
            nothing = np.zeros(len(texts), dtype=np.int64)
            nowhere = np.zeros((0, 2), np.int32) if self.has_spans else None
            return WordTokens(np.zeros(0, np.int32), nothing, nothing > 0, nowhere)
        if len(self._numbers) > _MOST_WORDS:
            self._forget()
        spaced = texts
        if self.boundary == "spaces":
            spaced = pc.replace_substring_regex(texts, "[\\t\\n\\r]", " ")
        words = pc.split_pattern(spaced, " ")
        offsets = words.offsets.to_numpy()
        starts, values = offsets[:-1] - offsets[0], words.flatten()
        self._seen += len(values)
        numbers = self._find_numbers(values, "" if self.boundary == "spaces" else " ")
        if self.boundary == "leading space":
            numbers[starts] = self._find_numbers(values.take(pa.array(starts)), "")
        known = self._are_words(texts)
        known &= np.minimum.reduceat(numbers, starts) >= 0
        numbers[~np.repeat(known, np.diff(offsets))] = _EMPTY
        word_starts = np.append(0, self._ends[:-1])
        lengths = (self._ends - word_starts)[numbers]
        places = concatenate_ranges(word_starts[numbers], lengths)
        spans = None
        if self.has_spans:
            widths = self._widths[numbers] + (self.boundary == "spaces")
            begins = np.cumsum(widths) - widths
            begins -= np.repeat(begins[starts], np.diff(offsets))
            spans = self._spans[places] + np.repeat(begins, lengths).astype(np.int32)[:, None]
        return WordTokens(self._ids[places], np.add.reduceat(lengths, starts), known, spans)

    def _forget(self) -> None:
        self._numbers = {"": _EMPTY}
        self._ids, self._ends = self._ids[:0], self._ends[:1]
        self._spans, self._widths = self._spans[:0], self._widths[:1]

    def _are_words(self, texts: pa.Array) -> np.ndarray:
        known = np.ones(len(texts), dtype=bool)
        for pattern in self.whole:
            found = pc.match_substring(texts, pattern)
            known &= ~found.to_numpy(zero_copy_only=False)
        return known

    def _find_numbers(self, values: pa.Array, before: str) -> np.ndarray:
        """Return the number of each word, `_UNSAFE` for one that a text must not be cut at.

        before: what belongs to a word in front of it.
        """
        encoded = values.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        if before:
            words = [before + word for word in words]
        known = map(self._numbers.get, words, repeat(_MISSING))
        numbers = np.fromiter(known, np.int64, len(words))
        new = np.flatnonzero(numbers == _MISSING)
        if len(new):
            numbers[new] = self._learn([words[i] for i in new])
        return numbers[encoded.indices.to_numpy()]

    def _learn(self, words: list[str]) -> np.ndarray:
        """Ask the tokenizer for the ids of words, and return their numbers."""
        if self._learned + len(words) > _FREE_WORDS + self._seen // _SEEN_PER_NEW:
            self._next_skips = min(2 * self._next_skips + 1, _MOST_SKIPS)
            self._skips = self._next_skips
            return np.full(len(words), _UNSAFE)
        self._next_skips = 0
        self._learned += len(words)
        safe = [i for i, word in enumerate(words) if _is_safe(word, self.boundary)]
        found = self._tokenize_in_context([words[i] for i in safe])
        numbers = np.full(len(words), _UNSAFE)
        kept = [(i, tokens) for i, tokens in zip(safe, found, strict=True) if tokens is not None]
        numbers[[i for i, _ in kept]] = len(self._ends) + np.arange(len(kept))
        self._numbers.update(zip(words, numbers.tolist(), strict=True))
        lists = [ids for _, (ids, _) in kept]
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        flat = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        self._ends = np.append(self._ends, len(self._ids) + np.cumsum(lengths))
        self._ids = np.append(self._ids, flat)
        if self.has_spans:
            spans = chain.from_iterable(spans for _, (_, spans) in kept)
            flat = np.fromiter(chain.from_iterable(spans), np.int32, 2 * len(flat))
            self._spans = np.append(self._spans, flat.reshape(-1, 2), axis=0)
            self._widths = np.append(self._widths, [len(words[i]) for i, _ in kept])
        return numbers

    def _tokenize_in_context(self, words: list[str]) -> list[Tokens | None]:
        """Return the tokens of each word between two others; None if it changes the others'."""
        if not words:
            return []
        gap = " " if self.boundary == "spaces" else ""
        firsts = [gap == "" and not word.startswith(" ") for word in words]
        texts = [
            f"{'' if first else 'a'}{gap}{w} a" for w, first in zip(words, firsts, strict=True)
        ]
        (one, _), (two, _), *several = self._tokenize(["a", "a a", *texts])
        after = two[len(one) :]
        found: list[Tokens | None] = []
        for (ids, spans), first, word in zip(several, firsts, words, strict=True):
            start, stop = 0 if first else len(one), len(ids) - len(after)
            fits = start <= stop and (first or ids[:start] == one) and ids[stop:] == after
            begin = 0 if first else len("a" + gap)
            own = [(a - begin, b - begin) for a, b in spans[start:stop]]
            fits = fits and all(0 <= a <= b <= len(word) for a, b in own)
            found.append((ids[start:stop], own) if fits else None)
        return found

    def _tokenize(self, texts: list[str]) -> list[Tokens]:
        # transformers sets these before each call; what it adds to one costs as much again here.
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        if self.has_spans:
            encodings = backend.encode_batch(texts, add_special_tokens=False)
            return [(encoding.ids, encoding.offsets) for encoding in encodings]
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [(encoding.ids, []) for encoding in encodings]


def make_word_table(tokenizer: Any, has_spans: bool = False) -> WordTable | None:
    """Return a table of the tokenizer's words; None if a word's tokens may depend on the text."""
    return build_word_table(tokenizer, has_spans) if is_plain_tokenizer(tokenizer) else None


def build_word_table(tokenizer: HasBackend, has_spans: bool = False) -> WordTable | None:
    """Return the same for what gives texts to its `backend_tokenizer` as they are."""
    backend = tokenizer.backend_tokenizer
    boundary = _find_boundary(backend.pre_tokenizer)
    if boundary is None or getattr(backend.model, "dropout", None):
        return None
    if not all(_is_local(part, boundary) for part in _list_parts(backend.normalizer)):
        return None
    whole = []
    for token in backend.get_added_tokens_decoder().values():
        strips = boundary == "leading space" and (token.lstrip or token.rstrip)
        if strips or any(map(str.isspace, token.content)):
            if token.normalized and backend.normalizer is not None:
                return None
            whole.append(token.content)
    # Two spaces that meet are unsafe anyway.
    if boundary == "leading space":
        whole = [content for content in whole if "  " not in content]
    if len(whole) > _MOST_PATTERNS:
        return None
    return WordTable(tokenizer, boundary, tuple(whole), has_spans)


def is_plain_tokenizer(tokenizer: Any) -> bool:
    """Return whether texts go to the `tokenizers` library as they are."""
    from transformers import PreTrainedTokenizerFast

    names = ("__call__", "_encode_plus", "set_truncation_and_padding")
    return (
        tokenizer.is_fast
        and not getattr(tokenizer, "split_special_tokens", False)
        and all(
            getattr(type(tokenizer), name, None) is getattr(PreTrainedTokenizerFast, name, None)
            for name in names
        )
    )


def _find_boundary(pre_tokenizer: Any) -> Boundary | None:
    first, *others = _list_parts(pre_tokenizer) or [None]
    match type(first).__name__:
        case "BertPreTokenizer" if not others:
            return "spaces"
        case "WhitespaceSplit":
            # "first" would look at the word's place in the text.
            local = all(
                type(part).__name__ == "Metaspace" and part.prepend_scheme in ("always", "never")
                for part in others
            )
            return "spaces" if local else None
        case "ByteLevel" if not others and first.use_regex:
            return "leading space"
    return None


def _is_local(part: Any, boundary: Boundary) -> bool:
    return type(part).__name__ in _NORMALIZERS[boundary]


def _list_parts(component: Any) -> list[Any]:
    """Return the parts of a normalizer or pre-tokenizer, in order."""
    if component is None:
        return []
    if type(component).__name__ != "Sequence":
        return [component]
    return [inner for part in list(component) for inner in _list_parts(part)]


def _is_safe(word: str, boundary: Boundary) -> bool:
    if len(word) > _LONGEST_WORD:
        return False
    if boundary == "leading space" and word.startswith(" "):
        # The spaces of "a  b" are tokenized together.
        return len(word) > 1 and not word[1].isspace()
    # A normalizer may look at a space and the accents that follow it.
    return not word or not _joins(word[0])


def _joins(character: str) -> bool:
    """Return whether a character may belong to the one before it."""
    if character.isascii():
        return False
    return unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf", "Lm") or (
        character in "\u0e33\u0eb3"
    )
