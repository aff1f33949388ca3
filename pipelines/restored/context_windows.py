"""A context longer than the model, cut into windows that each hold the whole question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# What a tokenizer makes of one window, by its names.
Inputs = Mapping[str, list[int]]

# What separates words for tokenizers that know no characters.
_WORD = re.compile("[^ \t\r\n\u202f]+")


@dataclass(frozen=True)
class Window:
    """What the search for answers needs of one window; arrays over its tokens, without padding.

    allowed: bool, the tokens over which the probabilities are taken.
    characters: [tokens, 2] the first character of each token and the one after its last.
    words: the same of the whole word, -1 where a token is in none; None where no word is known.
    padded_left: on which side of the tokens padding is, if there is any. There transformers 4.57
        took characters from so many tokens before the answer: that is not repeated.
    """

    allowed: np.ndarray
    characters: np.ndarray
    words: np.ndarray | None
    padded_left: bool

    def unpadded(self, logits: Any) -> np.ndarray:
        """The logits [1, tokens and padding] of the window's tokens, as float32."""
        row = logits[0].float().numpy()
        size = len(self.allowed)
        return row[len(row) - size :] if self.padded_left else row[:size]

    def locate(
        self, firsts: np.ndarray, lasts: np.ndarray, whole_words: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The characters where spans of tokens begin and end."""
        begin, end = self.characters[firsts, 0], self.characters[lasts, 1]
        if not whole_words or self.words is None:
            return begin, end
        word_begin, word_end = self.words[firsts, 0], self.words[lasts, 1]
        known = (word_begin >= 0) & (word_end >= 0)
        return np.where(known, word_begin, begin), np.where(known, word_end, end)


def make_fast_windows(
    tokenizer: Any, question: str, context: str, padding: Any, stride: int, length: int
) -> Iterator[tuple[Inputs, Window]]:
    """The tokenizer's outputs and the window, where it knows characters.

    Neighbouring windows share `stride` tokens. Raises ValueError where they would be no longer.
    """
    question_first = tokenizer.padding_side == "right"
    room = length - len(tokenizer.tokenize(question)) - tokenizer.num_special_tokens_to_add(True)
    if room <= stride and len(tokenizer.tokenize(context)) > room:
        # The tokenizer would panic, and that no `except Exception` around a row would catch.
        raise ValueError(
            f"`doc_stride` ({stride}) does not fit: beside the question, `max_seq_len` ({length}) "
            f"leaves {max(room, 0)} tokens for the context"
        )
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


def _make_fast_window(encoding: Any, cls: int | None, question_first: bool) -> Window:
    real = np.array(encoding.attention_mask, dtype=bool)
    allowed = np.ones(len(real), dtype=bool)
    # Where the context comes first, transformers 4.57 searched the question, too.
    if question_first:
        allowed = np.array([part == 1 for part in encoding.sequence_ids], dtype=bool)
        if cls is not None:  # stands for "no answer"
            allowed |= np.array(encoding.ids) == cls
    characters = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    place = {None: (-1, -1)}
    for word in dict.fromkeys(encoding.word_ids):
        if word is not None:
            place[word] = encoding.word_to_chars(word, int(question_first)) or (-1, -1)
    words = np.array([place[word] for word in encoding.word_ids], dtype=np.int64).reshape(-1, 2)
    return Window(allowed[real], characters[real], words[real], not question_first)


def make_slow_windows(
    tokenizer: Any, question: str, context: str, step: int, length: int, longest_question: int
) -> Iterator[tuple[Inputs, Window]]:
    """The tokenizer's outputs and the window, where it knows no characters: answers are words.

    As in transformers 4.57, windows begin `step` tokens apart, and a word reaches up to the
    character before the next one, or to the last character of the text.
    """
    if step < 1:
        raise ValueError(f"`doc_stride` should be >= 1 (got {step})")
    asked = tokenizer.encode(
        question, add_special_tokens=False, truncation=True, max_length=longest_question
    )
    room = length - len(asked) - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 1:
        raise ValueError(f"with the question, `max_seq_len` ({length}) leaves no room")
    ids, characters = _tokenize_words(tokenizer, context)
    for begin in range(0, max(len(ids), 1), step):
        part = slice(begin, begin + room)
        yield _make_slow_window(tokenizer, asked, ids[part], characters[part])
        if begin + room >= len(ids):
            return


def _tokenize_words(tokenizer: Any, context: str) -> tuple[list[int], np.ndarray]:
    """The token ids of a text's words, and [tokens, 2] the characters of each token's word."""
    words = list(_WORD.finditer(context))
    ends = [word.start() - 1 for word in words[1:]] + [len(context) - 1]
    ids: list[int] = []
    places = []
    for word, end in zip(words, ends, strict=False):
        pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word.group()))
        ids += pieces
        places += [(word.start(), end)] * len(pieces)
    return ids, np.array(places, dtype=np.int64).reshape(-1, 2)


def _make_slow_window(
    tokenizer: Any, asked: list[int], part: list[int], places: np.ndarray
) -> tuple[Inputs, Window]:
    question_first = tokenizer.padding_side == "right"
    encoded = tokenizer.prepare_for_model(
        *((asked, part) if question_first else (part, asked)),
        return_token_type_ids=True,
        return_attention_mask=True,
        return_special_tokens_mask=True,
    )
    ids = encoded["input_ids"]
    ordinary = np.flatnonzero(np.array(encoded["special_tokens_mask"]) == 0)
    if len(ordinary) != len(asked) + len(part):
        raise ValueError(f"{type(tokenizer).__name__} does not tell special tokens from others")
    inside = ordinary[len(asked) :] if question_first else ordinary[: len(part)]
    allowed = np.zeros(len(ids), dtype=bool)
    allowed[inside] = ~np.isin(np.array(ids)[inside], tokenizer.all_special_ids)
    if tokenizer.cls_token_id in ids:  # stands for "no answer"
        allowed[ids.index(tokenizer.cls_token_id)] = True
    characters = np.full((len(ids), 2), -1, dtype=np.int64)
    characters[inside] = places
    return encoded, Window(allowed, characters, None, not question_first)
