"""Texts tokenized word by word: the tokens and chunks are those of the whole text."""

from __future__ import annotations

import random
from functools import cache
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.pipelines.text import windows, word_table
from pipemill.pipelines.text.special_tokens import find_special_tokens
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.support import tiny, tiny_generators

# Scripts, accents that stand alone, what normalizers remove, lengthen and shorten, spaces of all
# kinds, special tokens and halves of them.
PIECES = [
    *("river", "mill", "naïve", "café", "e\u0301t\u00e9", "日本語", "한국어", "ไทยำ", "हिन्दी"),
    *(
        "שָׁלוֹם",
        "عَرَبِيّ",
        "🙂",
        "👩‍👧",
        "ﬁne",
        "Ⅷ",
        "İI",
        "ẞß",
        "¨",
        "½",
        "ｱﾞ",
        "don't",
        "'s",
        "...",
        "“q”",
    ),
    *("[MASK]", "[SEP]", "[MA", "SK]", "<s>", "<mask>", "new york", "a" * 70, "1234567890", "x_y"),
    *("\u0301", "\u200d", "\u00ad", "\ufeff", "\x00", "\x1c", "\u0600", "▁", "a", "A"),
    *(" ", " ", " ", " ", " ", "  ", "\t", "\n", "\r\n", "\v", "\f", "\x85", "\u00a0", "\u3000"),
]
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join),
    st.text(max_size=30),
)


def unigram() -> PreTrainedTokenizerFast:
    """As XLM-R's: words at any space, with a mark before each."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([*PIECES * 3, *(tiny.sentence(40, n) for n in range(9))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", mask_token=mask)


def byte_level() -> PreTrainedTokenizerFast:
    """As RoBERTa's: a space belongs to the word after it, and to the mask's token."""
    tokenizer = tiny_generators.words(64)
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    return tokenizer


def with_more_tokens() -> PreTrainedTokenizerFast:
    """With tokens that hold a space, or look at what is beside them."""
    tokenizer = tiny.tokenizer(64)
    more = [AddedToken("new york", normalized=False), AddedToken("mill", single_word=True)]
    tokenizer.add_tokens(more)
    return tokenizer


def composed() -> PreTrainedTokenizerFast:
    """As ModernBERT's: bytes of composed characters, and tokens of several spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    spaces = [f"a{''.join(run)}" for run in product(" \n\t", repeat=3)] * 9
    sentences = [tiny.sentence(40, n) for n in range(9)]
    tokenizer.train_from_iterator([*spaces, *sentences], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    made.add_tokens([AddedToken(" " * n, normalized=False) for n in range(2, 20)])
    return made


TOKENIZERS = {
    "word pieces": lambda: tiny.tokenizer(64),
    "bytes": byte_level,
    "composed": composed,
    "unigram": unigram,
    "more tokens": with_more_tokens,
}


@cache
def tokenizer_of(kind):
    return TOKENIZERS[kind]()


def tokenize_by_words(table, texts):
    """The ids of each text; None for one that is not known."""
    tokens = table.tokenize(pa.array(texts, pa.large_string()))
    assert len(tokens.ids) == tokens.counts.sum()
    lists = np.split(tokens.ids, np.cumsum(tokens.counts)[:-1])
    return [ids.tolist() if known else None for ids, known in zip(lists, tokens.known, strict=True)]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(texts=st.lists(TEXT, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_tokens_are_those_of_the_whole(kind, texts):
    tokenizer = tokenizer_of(kind)
    table = word_table.make_word_table(tokenizer)
    for _ in range(2):  # with words that are new, and then known
        for text, ids in zip(texts, tokenize_by_words(table, texts), strict=True):
            if ids is not None:
                assert ids == tokenizer(text, add_special_tokens=False)["input_ids"], repr(text)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(texts=st.lists(TEXT, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_tokens_are_where_the_tokenizer_says(kind, texts):
    tokenizer = tokenizer_of(kind)
    table = word_table.make_word_table(tokenizer, has_spans=True)
    for _ in range(2):
        tokens = table.tokenize(pa.array(texts, pa.large_string()))
        assert tokens.spans.shape == (len(tokens.ids), 2)
        spans = np.split(tokens.spans, np.cumsum(tokens.counts)[:-1])
        for text, found, known in zip(texts, spans, tokens.known, strict=True):
            whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            if known:
                assert found.tolist() == list(map(list, whole["offset_mapping"])), repr(text)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_usual_texts_are_known(kind):
    texts = ["", "a", "The old mill, by the river!", "naïve café", "don't “quote” 日本語 🙂 x_y"]
    texts += [tiny.sentence(n, n) for n in range(1, 40)]
    found = tokenize_by_words(word_table.make_word_table(tokenizer_of(kind)), texts)
    expected = tokenizer_of(kind)(texts, add_special_tokens=False)["input_ids"]
    assert found == expected


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stride": 7},
        {"truncation": True},
        {"limit": None},
        {"equal_sizes": True},
        {"keywords": {"add_special_tokens": False}},
        {"keywords": {"return_token_type_ids": False}, "stride": 3},
    ],
)
def test_chunks_are_those_of_the_whole(kind, more):
    rng = random.Random(1)
    texts = [
        "".join(f"{rng.choice(PIECES)}{rng.choice([' ', ' ', ' ', ''])}" for _ in range(n))
        for n in (0, 1, 5, 90, 12, 40, 300, 8, 20, 21, 22, 23)
    ] + [tiny.sentence(n, n) for n in range(60)]
    tokenizer = tokenizer_of(kind)
    settings = {"tokenizer": tokenizer, "limit": 24, **more}
    table = word_table.make_word_table(tokenizer)
    special = find_special_tokens(tokenizer, "a", settings.get("keywords", {}))
    by_words = windows.WindowTokenizer(**settings, words=table, special=special)
    found = by_words.make_chunks(texts)
    assert found == windows.WindowTokenizer(**settings).make_chunks(texts)
    assert table.tokenize(pa.array(texts, pa.large_string())).known.mean() > 0.5


def test_a_table_that_is_full_starts_again(monkeypatch):
    monkeypatch.setattr(word_table, "_MOST_WORDS", 10)
    table = word_table.make_word_table(tiny.tokenizer(64))
    for seed in range(9):
        texts = [tiny.sentence(8, seed), "the mill"]
        expected = table.tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert tokenize_by_words(table, texts) == expected
        assert len(table._numbers) <= 10 + 11


def test_texts_of_ever_new_words_go_to_the_tokenizer(monkeypatch):
    monkeypatch.setattr(word_table, "_FREE_WORDS", 20)
    monkeypatch.setattr(word_table, "_MOST_SKIPS", 5)
    table = word_table.make_word_table(tiny.tokenizer(64))
    calls = [[f"{n} river {n + 1000}"] for n in range(100)]
    known = [tokenize_by_words(table, texts) != [None] for texts in calls]
    assert all(known[:9])
    assert 9 < sum(known) < 30
    found = [tokenize_by_words(table, ["river " * 9]) != [None] for _ in range(9)]
    assert all(found[5:]), "the table is tried again"


def unlike(change) -> PreTrainedTokenizerFast:
    tokenizer = tiny.tokenizer(64)
    change(tokenizer.backend_tokenizer)
    return tokenizer


def first_word_only(backend):
    scheme = pre_tokenizers.Metaspace(prepend_scheme="first")
    splits = [pre_tokenizers.WhitespaceSplit(), scheme]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)


def test_tokenizers_that_look_beyond_a_word_have_no_table():
    others = [
        unlike(first_word_only),
        unlike(lambda b: setattr(b, "pre_tokenizer", pre_tokenizers.Metaspace())),
        unlike(lambda b: setattr(b, "pre_tokenizer", None)),
        unlike(lambda b: setattr(b, "normalizer", normalizers.Strip())),
        unlike(lambda b: setattr(b, "normalizer", normalizers.Replace(" ", "_"))),
        unlike(lambda b: b.add_tokens([AddedToken("New York", normalized=True)])),
    ]
    assert [word_table.make_word_table(tokenizer) for tokenizer in others] == [None] * len(others)
    dropping = tiny_generators.words(64)
    dropping.backend_tokenizer.model.dropout = 0.5
    assert word_table.make_word_table(dropping) is None


def test_a_tokenizer_of_another_kind_has_no_table():
    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, text, *args, **kwargs):
            return super()._encode_plus(text[::-1], *args, **kwargs)

    backend = tiny.tokenizer(64).backend_tokenizer
    backend.decoder = decoders.WordPiece()
    assert word_table.make_word_table(Own(tokenizer_object=backend)) is None
