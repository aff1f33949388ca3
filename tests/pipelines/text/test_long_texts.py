"""Texts tokenized in pieces: the tokens, windows and answers are those of the whole text."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from pipemill.pipelines.text import long_texts, truncation, windows
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support import tiny, tiny_generators
from tests.support.table_answers import answers

WORDS = [
    "river",
    "naïve",
    "café",
    "日本語",
    "🙂",
    "don't",
    "[MASK]",
    "x" * 30,
    "e\u0301t\u00e9",
    "\t",
]


def text_of(words: int, seed: int) -> str:
    rng = random.Random(seed)
    gaps = [" ", " ", " ", "  ", "\n", ". ", " — "]
    return "".join(
        (rng.choice(WORDS) if rng.random() < 0.2 else tiny.sentence(1, rng.randrange(99)))
        + rng.choice(gaps)
        for _ in range(words)
    )


def unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece makes them: a mark before each word, also before the first."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "[MASK]"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([text_of(400, seed) for seed in range(5)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS = {
    "word pieces": lambda: tiny.tokenizer(40),
    "bytes": lambda: tiny_generators.words(64),
    "unigram": unigram,
}


@pytest.fixture
def pieces(monkeypatch):
    """Small ones, so that a short text is long."""
    monkeypatch.setattr(long_texts, "LONG", 300)
    monkeypatch.setattr(long_texts, "PIECE", 256)
    monkeypatch.setattr(long_texts, "SHARED", 128)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_tokens_are_those_of_the_whole(pieces, kind):
    tokenizer = TOKENIZERS[kind]()
    for seed in range(6):
        text = text_of(500, seed)
        found = long_texts.tokenize_in_pieces(tokenizer, text, {})
        whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert found is not None
        assert found.ids.tolist() == whole["input_ids"]
        assert found.begins.tolist() == [begin for begin, _ in whole["offset_mapping"]]


def test_pieces_that_do_not_fit_together_are_not_taken(pieces):
    tokenizer = tiny.tokenizer(40)
    assert long_texts.tokenize_in_pieces(tokenizer, "a" * 3000, {}) is None  # one unknown word
    assert long_texts.tokenize_in_pieces(tokenizer, " " * 3000, {}) is None
    assert long_texts.tokenize_in_pieces(tokenizer, "short", {}) is None


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "more", [{}, {"stride": 7}, {"truncation": True}, {"keywords": {"add_special_tokens": False}}]
)
def test_windows_are_those_of_the_whole(pieces, monkeypatch, kind, more):
    tokenizer = TOKENIZERS[kind]()
    cutter = windows.WindowTokenizer(tokenizer=tokenizer, limit=24, **more)
    # The second as long as some windows, and no token more.
    texts = ["short", text_of(300, 3), text_of(130, 1), "", text_of(200, 2)]
    calls = []
    find = windows.find_special_tokens
    monkeypatch.setattr(
        windows, "find_special_tokens", lambda *given: calls.append(given) or find(*given)
    )
    found = cutter.make_chunks(texts)
    assert len(calls) == 3, "no text was tokenized in pieces"
    monkeypatch.setattr(long_texts, "LONG", 10**9)
    expected = cutter.make_chunks(texts)
    assert found.to_pylist() == expected.to_pylist()


def test_the_beginning_of_a_text_is_found_in_pieces(pieces, monkeypatch):
    tokenizer = tiny.tokenizer(40)
    text = text_of(900, 5)
    found = truncation.truncate_to_prefix(tokenizer, text, 40)
    assert found[1] > 100
    assert found[0] != text
    monkeypatch.setattr(long_texts, "LONG", 10**9)
    assert truncation.truncate_to_prefix(tokenizer, text, 40) == found


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_answers_are_those_of_the_whole(pieces, models, task, monkeypatch):
    texts = pa.table({"body": ["short", text_of(900, 4), text_of(700, 8)]})
    found = answers(models, task, texts)
    lost = found.stats.get("lost_tokens", 0)
    monkeypatch.setattr(long_texts, "LONG", 10**9)
    monkeypatch.setattr(truncation, "_MAX_CHARACTERS_PER_TOKEN", 10**9)
    whole = answers(models, task, texts)
    assert found.results.equals(whole.results)
    assert lost == whole.stats.get("lost_tokens", 0)
    assert (lost > 0) is (task == "token-classification")


def test_a_tokenizer_never_sees_a_long_text_whole(models, monkeypatch):
    tokenizer = tiny.tokenizer(40)
    text = (tiny.sentence(900, 1) + " ") * 120
    assert len(text) > long_texts.LONG
    longest = 0
    encode = PreTrainedTokenizerFast._encode_plus

    def seen(self, text, *args, **kwargs):
        nonlocal longest
        longest = max(longest, *map(len, [text] if isinstance(text, str) else text))
        return encode(self, text, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "_encode_plus", seen)
    chunks = windows.WindowTokenizer(tokenizer=tokenizer, limit=40).make_chunks([text])
    assert 0 < longest <= long_texts.PIECE + 2 * long_texts.SHARED
    sizes = np.array([chunk["size"] for chunk in chunks.to_pylist()[0]])
    assert (sizes[:-1] == 40).all()
