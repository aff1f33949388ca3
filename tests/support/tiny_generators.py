"""Tiny random models that write: decoders of text, of text and images, of text and sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import tiny

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if not loop.last or add_generation_prompt %} | {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# The media that a message shows stand before its text.
MEDIA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'text' %}{{ p['text'] }}{% else %}<media>{% endif %} "
    "{% endfor %}{% endif %}{% if not loop.last or add_generation_prompt %} | {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def words(
    max_length: int = 128, chat_template: str | None = None, special: tuple[str, ...] = ()
) -> Any:
    """A byte-level BPE tokenizer: no text is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<s>", "<pad>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([tiny.sentence(40, seed) for seed in range(20)], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=max_length,
    )
    made.chat_template = chat_template
    return made


def _llama(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.8,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }


def decoder(folder: Path, **config: Any) -> None:
    """Write a Llama; config: what differs from `_llama`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    tokens = words(chat_template=TEMPLATE)
    model = LlamaForCausalLM(LlamaConfig(**(_llama(len(tokens)) | config))).eval()
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)


def gpt2(folder: Path) -> None:
    _with_positions(folder, "GPT2", 64)


def with_table_in_code(folder: Path, kind: str) -> None:
    """Write a model of a kind whose table of 40 positions is no module."""
    more = {"n_ctx": 40, "dff": 16} if kind == "CTRL" else {"rotary_dim": 4}
    _with_positions(folder, kind, 40, **more)


def _with_positions(folder: Path, kind: str, count: int, **more: Any) -> None:
    import torch
    import transformers

    torch.manual_seed(15)
    tokens = words(64)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokens),
        n_positions=count,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.8,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        **more,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)


def decider(folder: Path) -> None:
    """The decoder, with the tokens that label a question's options."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.decision import DecisionConfig

    torch.manual_seed(12)
    tokens = words(512, chat_template=TEMPLATE)
    tokens.add_tokens(["Yes", "No"])
    LlamaForCausalLM(LlamaConfig(**_llama(len(tokens) + 2))).eval().save_pretrained(folder)
    tokens.save_pretrained(folder)
    DecisionConfig(temperature={"choice": 8.0, "score": 8.0, "noul": 8.0}).save_pretrained(folder)


def llava(folder: Path) -> None:
    """Sees images of 16 by 16 pixels, as 4 patches."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(13)
    tokens = words(256, special=("<media>",))
    seen = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        initializer_range=0.8,
        initializer_factor=4.0,
    )
    config = LlavaConfig(
        vision_config=seen,
        text_config=LlamaConfig(**_llama(len(tokens))),
        image_token_id=tokens.convert_tokens_to_ids("<media>"),
        vision_feature_layer=-1,
        pad_token_id=1,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MEDIA_TEMPLATE,
        image_token="<media>",
    ).save_pretrained(folder)


def listener(folder: Path) -> None:
    """Hears up to two seconds, with text before or after."""
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    torch.manual_seed(14)
    special = ("<media>", "<|audio_bos|>", "<|audio_eos|>")
    tokens = words(512, special=special)
    heard = {
        "model_type": "qwen2_audio_encoder",
        "d_model": 16,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "encoder_layers": 1,
        "num_mel_bins": 16,
        "max_source_positions": 100,
        "init_std": 0.8,
        "initializer_range": 0.8,
    }
    config = Qwen2AudioConfig(
        audio_config=heard,
        text_config={"model_type": "qwen2", "num_key_value_heads": 2, **_llama(len(tokens))},
        audio_token_index=tokens.convert_tokens_to_ids("<media>"),
    )
    model = Qwen2AudioForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 8
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 1
    model.save_pretrained(folder)
    hears = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    Qwen2AudioProcessor(
        hears, tokens, chat_template=MEDIA_TEMPLATE, audio_token="<media>"
    ).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "text-generation": decoder,
    "decision": decider,
    "image-text-to-text": llava,
    "any-to-any": listener,
}
