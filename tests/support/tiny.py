"""Tiny random models, built from configurations: nothing is downloaded.

Their weights are spread out (`initializer_range` of 1 and more): with the usual 0.02 all rows
get nearly the same answer, and a swapped one goes unseen.
"""

from __future__ import annotations

import random
from pathlib import Path

WORDS = (
    "the a an of to in is was it he she they we you not and or but with from on at by for mill "
    "river stone water wheel grain flour bread baker farmer horse cart road town market price "
    "winter summer rain sun wind storm night day week year red blue green black white old new "
    "small large good bad happy sad quick slow warm cold Paris Berlin London Anna Peter Mary "
    "example . , ! ? this"
).split()


def sentence(words: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


def texts(count: int, seed: int = 0, longest: int = 60) -> list[str]:
    """Texts of log-normal length, as natural ones have."""
    rng = random.Random(seed)
    lengths = [min(max(int(rng.lognormvariate(2.0, 0.9)), 1), longest) for _ in range(count)]
    return [sentence(n, seed * 100_003 + i) for i, n in enumerate(lengths)]


def tokenizer(max_length: int = 512):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({c for w in WORDS for c in w.lower()})
    whole = sorted({w.lower() for w in WORDS[::2]})
    pieces = dict.fromkeys(special + letters + [f"##{c}" for c in letters] + whole)
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(folder: Path, head: str, labels: list[str] | None = None, max_length: int = 64) -> Path:
    """A BERT of two layers with `head`, for example "ForSequenceClassification"."""
    import torch
    import transformers

    torch.manual_seed(len(head) + len(labels or ()))
    words = tokenizer(max_length)
    names = labels or ["negative", "positive"]
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=max_length,
        initializer_range=0.5,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = getattr(transformers, f"Bert{head}")(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
