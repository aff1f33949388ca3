"""Tiny models of each restored kind, with weights spread out; built with transformers 4.57.6.

Their folders are kept beside this file: the same seed gives other weights in other versions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.support import tiny

HERE = Path(__file__).parent
MODELS = HERE / "models"
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyz.,!?:'-éüß日本語"))
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if not loop.last or "
    "add_generation_prompt %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def save(name: str, model: Any, *others: Any) -> None:
    """The model with its tokenizer and image processor, in `models/NAME`."""
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in (model.eval(), *others):
        part.save_pretrained(folder)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 200_000, name


def copy_with(name: str, source: str, **settings: Any) -> None:
    """The model of `source` with other settings in its `generation_config.json`."""
    shutil.rmtree(MODELS / name, ignore_errors=True)
    shutil.copytree(MODELS / source, MODELS / name)
    file = MODELS / name / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}, indent=2) + "\n")


def unigram(special: list[str]) -> Tokenizer:
    """Pieces as SentencePiece has them: words, and letters for all others."""
    words = sorted({w for w in tiny.WORDS if w.isalpha()})
    pieces = [*special, "▁", *(f"▁{w}" for w in words), *LETTERS]
    scores = [0.0] * len(special) + [-3.0 - 0.01 * i for i in range(len(pieces) - len(special))]
    fast = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), special.index("<unk>")))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    return fast


def t5_tokenizer() -> PreTrainedTokenizerFast:
    fast = unigram(["<pad>", "</s>", "<unk>"])
    fast.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=48,
    )


def byte_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE, learned from a few sentences: no text is unknown to it."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([tiny.sentence(40, seed) for seed in range(20)], trainer)
    if not settings.get("chat_template"):
        fast.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=64,
        **settings,
    )


def mbart_tokenizer() -> transformers.MBartTokenizerFast:
    from transformers.models.mbart.tokenization_mbart_fast import FAIRSEQ_LANGUAGE_CODES

    fast = unigram(["<s>", "<pad>", "</s>", "<unk>"])
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        ]
    )
    fast.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    fast.add_special_tokens([*FAIRSEQ_LANGUAGE_CODES, "<mask>"])
    return transformers.MBartTokenizerFast(tokenizer_object=fast, model_max_length=48)


def t5(vocabulary: int, **settings: Any) -> transformers.T5ForConditionalGeneration:
    torch.manual_seed(5)
    config = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        initializer_factor=1.0,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        **settings,
    )
    return spread(transformers.T5ForConditionalGeneration(config), 0.5)


def bart(kind: str, vocabulary: int, **settings: Any) -> Any:
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=vocabulary,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=320,
        init_std=0.8,
        **settings,
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def llama(vocabulary: int) -> transformers.LlamaForCausalLM:
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.8,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    return transformers.LlamaForCausalLM(config)


def spread(model: Any, by: float) -> Any:
    """Weights that are far from one another, whatever the model's own way to begin."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=by)
    return model
