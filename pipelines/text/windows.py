"""Windows: texts longer than the model, cut into chunks that overlap, or truncated to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.task import Parameter

from ..tasks import shared_parameters
from . import long_texts, model_limits, token_chunks
from .special_tokens import SpecialTokens, find_special_tokens
from .token_ranges import Windows, cut_windows
from .truncation import count_special_tokens, count_tokens, count_truncated_in_batch
from .word_table import WordTokenizer, make_word_table

# Parameters of the tasks that tokenize with `WindowTokenizer`.
PARAMETERS: Mapping[str, Parameter] = {
    "truncation": shared_parameters.truncation(False),
    "max_length": shared_parameters.count(None, least=1),
    "stride": shared_parameters.count(0),
    "add_special_tokens": Parameter(True, "bool"),
    "return_token_type_ids": Parameter(None, "bool|null"),
    "split_special_tokens": Parameter(None, "bool|null"),
    # These change no answer: padding is chosen by measurement.
    "padding": shared_parameters.padding(False),
    "padding_side": Parameter(None, "str|null", (None, "left", "right")),
    "pad_to_multiple_of": shared_parameters.count(None, least=1),
    "return_attention_mask": Parameter(None, "bool|null"),
}
# Those that decide a text's tokens. They go to the tokenizer as they are.
_TOKENIZING = ("add_special_tokens", "return_token_type_ids", "split_special_tokens")

# The most characters of texts that are tokenized together: the tokenizer's output takes some
# hundred bytes per token.
_CHARACTERS = 2**20


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for values of `PARAMETERS` that are wrong or contradict each other."""
    for name, parameter in PARAMETERS.items():
        if parameters.get(name, parameter.default) != parameter.default:
            parameter.validate(name, parameters[name])
    length, stride = parameters["max_length"], parameters["stride"]
    if length is not None and stride >= length and not truncates(parameters["truncation"]):
        raise ValueError(
            f"stride ({stride}), which two windows share, must be less than max_length ({length})"
        )


def check_single_texts(truncation: bool | str | None) -> None:
    """Raise ValueError for a truncation of second texts where there are none."""
    if truncation == "only_second":
        raise ValueError(
            "truncation is only_second, and there is no second text (text_pair): set it to "
            "only_first, or true"
        )


def truncates(truncation: bool | str | None) -> bool:
    """Return whether this value of `truncation` asks for truncated texts instead of windows."""
    return truncation not in (None, False, "do_not_truncate")


@dataclass(frozen=True, kw_only=True)
class WindowTokenizer:
    """A tokenizer that makes chunks of at most `limit` tokens from texts, or from pairs of them.

    A longer text becomes windows that overlap by `stride` tokens. Of a pair only the first text
    is cut, and every window is followed by the whole second text. With `truncation` the text is
    truncated to a single chunk, and the chunk's field `lost` counts the tokens that are left out.

    Attributes:
        tokenizer: a transformers tokenizer.
        limit: the most tokens of a chunk, special ones included; None for any number.
        stride: tokens that neighbouring windows share.
        truncation: True, or one of transformers' names for it; False for windows.
        equal_sizes: whether chunks of different length must not share a micro-batch.
        keywords: more keywords for the tokenizer.
        words: the tokenizer's words, if texts are tokenized word by word.
        special: the special tokens around a text, if they are known.
        has_spans: whether chunks say where in its text each token is, see `build_chunks`.
    """

    tokenizer: Any
    limit: int | None
    stride: int = 0
    truncation: bool | str | None = False
    equal_sizes: bool = False
    keywords: Mapping[str, Any] = field(default_factory=dict)
    words: WordTokenizer | None = None
    special: SpecialTokens | None = None
    has_spans: bool = False

    @classmethod
    def from_settings(
        cls,
        pipeline: Any,
        limit: int | None,
        given: Mapping[str, Any],
        has_spans: bool = False,
    ) -> WindowTokenizer:
        """Make one for a loaded pipeline. given: values of `PARAMETERS`, if not the defaults."""
        settings = {**{name: p.default for name, p in PARAMETERS.items()}, **given}
        tokenizer = pipeline.tokenizer
        keywords = {n: settings[n] for n in _TOKENIZING if settings[n] is not None}
        splits_special = keywords.get("split_special_tokens", False)
        words = None if splits_special else make_word_table(tokenizer, has_spans)
        return cls(
            tokenizer=tokenizer,
            limit=limit,
            stride=settings["stride"],
            truncation=settings["truncation"],
            equal_sizes=model_limits.needs_equal_sizes(pipeline),
            keywords=keywords,
            words=words,
            special=find_special_tokens(tokenizer, "a", keywords) if words else None,
            has_spans=has_spans,
        )

    def __post_init__(self) -> None:
        if self.limit is None:
            return
        room = self.limit - self._count_special_tokens(1)
        if room < 1:
            raise ValueError(
                f"max_length ({self.limit}) must be more than the special tokens of a text "
                f"({self._count_special_tokens(1)})"
            )
        if not self.truncates and self.stride >= room:
            raise ValueError(f"stride ({self.stride}) must be less than a window's {room} tokens")

    @property
    def truncates(self) -> bool:
        """Whether texts are truncated instead of cut into windows."""
        return truncates(self.truncation)

    @property
    def truncating(self) -> dict[str, Any]:
        """The keywords that make a tokenizer truncate a text as this does; {} for windows."""
        if not self.truncates:
            return {}
        return {"truncation": self.truncation, "max_length": self.limit}

    def make_chunks(self, *texts: list[str]) -> pa.ListArray:
        """Make the chunks of each text.

        Args:
            *texts: one list of texts, or two of equal length: pairs.

        Returns:
            One list of chunks per text or pair.

        Raises:
            ValueError: for a text that needs windows that can't be cut.
        """
        if len(texts) == 1 and self.words and self.special and self._cuts_right():
            return self._tokenize_by_words(texts[0], self.words, self.special)
        return self._tokenize(*texts)

    def _cuts_right(self) -> bool:
        return self.tokenizer.truncation_side == "right" and self.truncation != "only_second"

    def _tokenize_by_words(
        self, texts: list[str], words: WordTokenizer, special: SpecialTokens
    ) -> pa.ListArray:
        """Make the chunks of texts of known words; the tokenizer gets the others."""
        tokens = words.tokenize(pa.array(texts, pa.large_string()))
        others = np.flatnonzero(~tokens.known)
        if len(others) == len(texts):
            return self._tokenize(texts)
        lists = self._build(tokens.ids, tokens.spans, tokens.counts, special)
        if not len(others):
            return lists
        order = np.arange(len(texts))
        order[others] = len(texts) + np.arange(len(others))
        rest = self._tokenize([texts[i] for i in others])
        return pa.concat_arrays([lists, rest]).take(pa.array(order))

    def _build(
        self, ids: np.ndarray, spans: np.ndarray | None, counts: np.ndarray, special: SpecialTokens
    ) -> pa.ListArray:
        """Make the chunks of texts from their tokens, which are as in `WordTokens`."""
        windows = self._cut(counts)
        lost = counts - windows.lengths if self.truncates else None
        inputs = special.surround(ids, windows, spans)
        lengths = windows.lengths + special.count()
        chunks = token_chunks.build_from_stream(inputs, lengths, self.equal_sizes, lost)
        return make_lists(chunks, windows.counts)

    def _cut(self, tokens: np.ndarray) -> Windows:
        """Cut texts of so many tokens, special ones left out, into windows."""
        room = None if self.limit is None else self.limit - self._count_special_tokens(1)
        if room is not None and self.truncates:
            begins = np.cumsum(tokens) - tokens
            return Windows(begins, np.minimum(tokens, room), np.ones_like(tokens))
        return cut_windows(tokens, room, (room or 0) - self.stride)

    def _tokenize(self, *texts: list[str]) -> pa.ListArray:
        lists = []
        for part in split_by_size([sum(map(len, row)) for row in zip(*texts, strict=True)]):
            mark_progress()
            columns = [column[part] for column in texts]
            is_alone = len(columns) == 1 and len(columns[0]) == 1
            pieces = self._tokenize_in_pieces(columns[0][0]) if is_alone else None
            lists.append(self._tokenize_at_once(*columns) if pieces is None else pieces)
        return pa.concat_arrays(lists)

    def _tokenize_in_pieces(self, text: str) -> pa.ListArray | None:
        """Make the chunks of a very long text, of which the tokenizer gets one piece at a time.

        Return None for a shorter text, and where the tokenizer can't be used that way.
        """
        if self.limit is None or not self._cuts_right():
            return None
        tokens = long_texts.tokenize_in_pieces(self.tokenizer, text, self.keywords)
        if tokens is None:
            return None
        special = find_special_tokens(self.tokenizer, text, self.keywords)
        if special is None:
            return None
        spans = tokens.spans if self.has_spans else None
        return self._build(tokens.ids, spans, np.array([len(tokens.ids)]), special)

    def _tokenize_at_once(self, *texts: list[str]) -> pa.ListArray:
        encoding = self._encode(texts)
        lost = self._count_truncated(encoding, texts) if self.truncates else None
        chunks = token_chunks.build_chunks(encoding, self.equal_sizes, lost)
        # Only a slow tokenizer leaves longer ones.
        slow = f"{type(self.tokenizer).__name__} is not a fast tokenizer and can't cut windows"
        advice = f"{slow}; set parameters.truncation to true"
        token_chunks.check_chunk_sizes(chunks, self.limit, advice)
        row_of_chunk = np.array(encoding.get("overflow_to_sample_mapping", range(len(chunks))))
        if self.tokenizer.truncation_side == "left" and len(chunks) > len(texts[0]):
            # Such a tokenizer begins with a text's last window.
            reading_order = np.lexsort((-np.arange(len(chunks)), row_of_chunk))
            chunks = chunks.take(pa.array(reading_order))
        return make_lists(chunks, np.bincount(row_of_chunk, minlength=len(texts[0])))

    def _encode(self, texts: Sequence[list[str]]) -> Any:
        options: dict[str, Any] = {**self.keywords, "return_attention_mask": False}
        if self.has_spans:
            options |= {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        if self.limit is None:
            return self.tokenizer(*texts, **options)
        options["max_length"] = self.limit
        if self.truncates:
            return self.tokenizer(*texts, truncation=self.truncation, **options)
        # A slow tokenizer can't cut windows, and would truncate silently.
        if len(texts) == 2 or not self.tokenizer.is_fast:
            whole = self.tokenizer(*texts, truncation=False, **options)
            long = np.flatnonzero(count_tokens(whole) > self.limit)
            if not self.tokenizer.is_fast or not len(long):
                return whole
            self._check_room([texts[1][i] for i in long])
        options |= {"stride": self.stride, "return_overflowing_tokens": True}
        return self.tokenizer(*texts, truncation="only_first", **options)

    def _check_room(self, second_texts: list[str]) -> None:
        """Raise ValueError for a second text beside which no window of the first would advance.

        The tokenizer would panic.
        """
        keywords = {**self.keywords, "add_special_tokens": False}
        tokens = int(count_tokens(self.tokenizer(second_texts, **keywords)).max())
        room = max((self.limit or 0) - tokens - self._count_special_tokens(2), 0)
        if room <= self.stride:
            raise ValueError(
                f"the second text's {tokens} tokens leave {room} of {self.limit} to windows of the "
                f"first, which overlap by {self.stride}: shorten it, or set parameters.truncation "
                "to true"
            )

    def _count_truncated(self, encoding: Any, texts: Sequence[list[str]]) -> np.ndarray:
        if self.limit is None:
            return np.zeros(len(texts[0]), dtype=np.int32)
        return count_truncated_in_batch(self.tokenizer, encoding, texts, self.limit, self.keywords)

    def _count_special_tokens(self, texts: int) -> int:
        return count_special_tokens(self.tokenizer, texts, self.keywords)


def split_by_size(characters: Sequence[int]) -> list[slice]:
    """Split rows into groups of consecutive ones, whose texts are tokenized at once.

    A group has at most about `_CHARACTERS`. A very long row is alone in its group.

    Args:
        characters: of the texts of each row.
    """
    sizes = np.array(characters, dtype=np.int64)
    ends = np.cumsum(sizes)
    cuts = np.flatnonzero(np.diff(ends // _CHARACTERS)) + 1
    long = np.flatnonzero(sizes >= long_texts.LONG)
    edges = sorted({0, *cuts.tolist(), *long.tolist(), *(long + 1).tolist(), len(ends)})
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
