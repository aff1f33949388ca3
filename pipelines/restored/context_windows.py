"""Windows of a context that is longer than the model, each with the whole question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

# A tokenizer's output for one window, by name.
Inputs = Mapping[str, list[int]]

# A word, for tokenizers that do not report characters.
_WORD = re.compile("[^ \t\r\n\u202f]+")


@dataclass(frozen=True)
class Window:
    """A window as the search for answers needs it: arrays over its tokens, without padding.

    Attributes:
        allowed: whether a token takes part in the probabilities, bool, shape (tokens,).
        characters: the first character of each token and the one after its last, shape (tokens, 2).
        words: the same for the word of each token, -1 for a token outside words; None if the
            tokenizer reports no words.
        padded_left: whether padding, if there is any, stands before the tokens. transformers 4.57
            then took the characters of as many tokens earlier, which was wrong.
    """

    allowed: np.ndarray
    characters: np.ndarray
    words: np.ndarray | None
    padded_left: bool

    def unpadded(self, logits: Any) -> np.ndarray:
        """Return the logits of the window's tokens, float32, shape (tokens,).

        logits: shape (1, tokens and padding).
        """
        row = logits[0].float().numpy()
        size = len(self.allowed)
        return row[len(row) - size :] if self.padded_left else row[:size]

    def locate(
        self, firsts: np.ndarray, lasts: np.ndarray, whole_words: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the characters where spans of tokens begin and end, each of shape (spans,)."""
        begin, end = self.characters[firsts, 0], self.characters[lasts, 1]
        if not whole_words or self.words is None:
            return begin, end
        word_begin, word_end = self.words[firsts, 0], self.words[lasts, 1]
        in_words = (word_begin >= 0) & (word_end >= 0)
        return np.where(in_words, word_begin, begin), np.where(in_words, word_end, end)


def make_fast_windows(
    tokenizer: Any, question: str, context: str, padding: Any, stride: int, length: int
) -> Iterator[tuple[Inputs, Window]]:
    """Yield the inputs and the window of each window, for a tokenizer that reports characters.

    Args:
        tokenizer: a fast tokenizer.
        question: the question, which every window holds.
        context: the text to cut.
        padding: the tokenizer's `padding`.
        stride: tokens that neighbouring windows share.
        length: the most tokens of a window, question included.

    Raises:
        ValueError: if a window has no more tokens of the context than `stride`.
    """
    question_first = tokenizer.padding_side == "right"
    tokens = len(tokenizer.tokenize(question))
    if (error := find_lack_of_room(tokenizer, tokens, context, stride, length)) is not None:
        raise error
    encoded = tokenizer(
        *((question, context) if question_first else (context, question)),
        padding=padding,
        truncation="only_second" if question_first else "only_first",
        max_length=length,
        stride=stride,
        return_token_type_ids=True,
        return_overflowing_tokens=True,
    )
    for i, encoding in enumerate(encoded.encodings):
        window = _make_fast_window(encoding, tokenizer.cls_token_id, question_first)
        yield {name: values[i] for name, values in encoded.items()}, window


def find_lack_of_room(
    tokenizer: Any, question_tokens: int, context: str, stride: int, length: int
) -> ValueError | None:
    """Return the error of a question that leaves a window too few tokens of the context.

    The tokenizer would panic, which no `except Exception` around a row catches.
    """
    room = length - question_tokens - tokenizer.num_special_tokens_to_add(True)
    if room > stride or len(tokenizer.tokenize(context)) <= room:
        return None
    return ValueError(
        f"`doc_stride` ({stride}) is too large: with the question, `max_seq_len` ({length}) "
        f"leaves {max(room, 0)} tokens for the context"
    )


@dataclass(frozen=True, kw_only=True)
class WindowColumns:
    """The windows of several contexts, one after the other.

    Attributes:
        columns: of all windows' tokens, by name, each int32 of shape (tokens,): `input_ids`,
            `token_type_ids`, and the numbers of a `Window`: `starts`, `ends`, `word_starts` and
            `word_ends`, -1 where there are none. A token is allowed if it has a start.
        lengths: tokens of each window, shape (windows,).
        counts: windows of each context, shape (contexts,).
    """

    columns: dict[str, np.ndarray]
    lengths: np.ndarray
    counts: np.ndarray


def make_window_columns(
    tokenizer: Any, questions: list[str], contexts: list[str], stride: int, length: int
) -> WindowColumns:
    """Return the windows that `make_fast_windows` makes of each context, without padding.

    Args:
        tokenizer: a fast tokenizer that pads on the right.
        questions: of each context.
        contexts: the texts to cut, for which `find_lack_of_room` finds nothing.
        stride: tokens that neighbouring windows share.
        length: the most tokens of a window, question included.
    """
    encoded = tokenizer(
        questions,
        contexts,
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_token_type_ids=True,
        return_attention_mask=False,
        return_overflowing_tokens=True,
    )
    lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64)
    total = int(lengths.sum())

    def concatenate(lists: Iterable[Iterable[int]], count: int = total) -> np.ndarray:
        return np.fromiter(chain.from_iterable(lists), np.int32, count)

    ids, types = concatenate(encoded["input_ids"]), concatenate(encoded["token_type_ids"])
    several, none = encoded.encodings, {None: -1}
    pairs = chain.from_iterable(one.offsets for one in several)
    spans = concatenate(pairs, 2 * total).reshape(-1, 2)
    parts = concatenate([none.get(part, part) for part in one.sequence_ids] for one in several)
    words = concatenate([none.get(word, word) for word in one.word_ids] for one in several)
    inside = parts == 1
    allowed = inside if tokenizer.cls_token_id is None else inside | (ids == tokenizer.cls_token_id)
    words[~inside] = -1
    # A word is a run of tokens.
    window = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.flatnonzero((np.diff(words, prepend=-2) != 0) | (np.diff(window, prepend=-1) != 0))
    sizes = np.diff(begins, append=total)
    word_spans = np.stack([spans[begins, 0], spans[begins + sizes - 1, 1]])
    word_starts, word_ends = np.where(words < 0, -1, np.repeat(word_spans, sizes, axis=1))
    starts, ends = np.where(allowed, spans.T, -1)
    names = ("starts", "ends", "word_starts", "word_ends")
    places = dict(zip(names, (starts, ends, word_starts, word_ends), strict=True))
    counts = np.bincount(encoded["overflow_to_sample_mapping"], minlength=len(contexts))
    columns = {"input_ids": ids, "token_type_ids": types, **places}
    return WindowColumns(columns=columns, lengths=lengths, counts=counts)


def _make_fast_window(encoding: Any, cls: int | None, question_first: bool) -> Window:
    real = np.array(encoding.attention_mask, dtype=bool)
    allowed = np.ones(len(real), dtype=bool)
    # Where the context comes first, transformers 4.57 searched the question, too.
    if question_first:
        allowed = np.array([part == 1 for part in encoding.sequence_ids], dtype=bool)
        if cls is not None:  # this token stands for "no answer"
            allowed |= np.array(encoding.ids) == cls
    characters = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    spans = {None: (-1, -1)}
    for word in dict.fromkeys(encoding.word_ids):
        if word is not None:
            spans[word] = encoding.word_to_chars(word, int(question_first)) or (-1, -1)
    words = np.array([spans[word] for word in encoding.word_ids], dtype=np.int64).reshape(-1, 2)
    return Window(allowed[real], characters[real], words[real], not question_first)


def make_slow_windows(
    tokenizer: Any, question: str, context: str, step: int, length: int, longest_question: int
) -> Iterator[tuple[Inputs, Window]]:
    """Yield the inputs and the window of each window, for a tokenizer that reports no characters.

    Answers are then whole words. As in transformers 4.57, windows begin `step` tokens apart, and a
    word reaches up to the character before the next word, or to the text's last character.

    Args:
        tokenizer: a slow tokenizer.
        question: the question, which every window holds.
        context: the text to cut.
        step: tokens between the beginnings of two windows.
        length: the most tokens of a window, question included.
        longest_question: the most tokens of the question.

    Raises:
        ValueError: if the question leaves no room, or the tokenizer marks no special tokens.
    """
    if step < 1:
        raise ValueError(f"`doc_stride` should be >= 1 (got {step})")
    question_ids = tokenizer.encode(
        question, add_special_tokens=False, truncation=True, max_length=longest_question
    )
    room = length - len(question_ids) - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 1:
        raise ValueError(
            f"with the question, `max_seq_len` ({length}) leaves no room for the context"
        )
    ids, characters = _tokenize_words(tokenizer, context)
    for begin in range(0, max(len(ids), 1), step):
        part = slice(begin, begin + room)
        yield _make_slow_window(tokenizer, question_ids, ids[part], characters[part])
        if begin + room >= len(ids):
            return


def _tokenize_words(tokenizer: Any, context: str) -> tuple[list[int], np.ndarray]:
    """Return the token ids of a text's words, and the characters of each token's word.

    The characters have shape (tokens, 2).
    """
    words = list(_WORD.finditer(context))
    ends = [word.start() - 1 for word in words[1:]] + [len(context) - 1]
    ids: list[int] = []
    spans = []
    for word, end in zip(words, ends, strict=False):
        pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word.group()))
        ids += pieces
        spans += [(word.start(), end)] * len(pieces)
    return ids, np.array(spans, dtype=np.int64).reshape(-1, 2)


def _make_slow_window(
    tokenizer: Any, question_ids: list[int], part: list[int], part_characters: np.ndarray
) -> tuple[Inputs, Window]:
    question_first = tokenizer.padding_side == "right"
    encoded = tokenizer.prepare_for_model(
        *((question_ids, part) if question_first else (part, question_ids)),
        return_token_type_ids=True,
        return_attention_mask=True,
        return_special_tokens_mask=True,
    )
    ids = encoded["input_ids"]
    ordinary = np.flatnonzero(np.array(encoded["special_tokens_mask"]) == 0)
    if len(ordinary) != len(question_ids) + len(part):
        raise ValueError(
            f"{type(tokenizer).__name__} does not mark its special tokens: use a fast tokenizer"
        )
    inside = ordinary[len(question_ids) :] if question_first else ordinary[: len(part)]
    allowed = np.zeros(len(ids), dtype=bool)
    allowed[inside] = ~np.isin(np.array(ids)[inside], tokenizer.all_special_ids)
    if tokenizer.cls_token_id in ids:  # this token stands for "no answer"
        allowed[ids.index(tokenizer.cls_token_id)] = True
    characters = np.full((len(ids), 2), -1, dtype=np.int64)
    characters[inside] = part_characters
    return encoded, Window(allowed, characters, None, not question_first)
