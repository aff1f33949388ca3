"""Tiny random models that read an image together with text: CLIP and its kin, documents."""

from __future__ import annotations

from typing import Any

from tests.support import tiny

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "initializer_range": 0.8,
}


def _text_tower(**more: Any) -> dict[str, Any]:
    tokens = tiny.tokenizer(32)
    return {
        **SMALL,
        "vocab_size": len(tokens),
        "max_position_embeddings": 32,
        "eos_token_id": tokens.sep_token_id,
        "bos_token_id": tokens.cls_token_id,
        "pad_token_id": tokens.pad_token_id,
        **more,
    }


def two_towers(kind: str, processor: str, image_size: int) -> list[Any]:
    import transformers as t

    towers = {
        "text_config": _text_tower(),
        "vision_config": {**SMALL, "image_size": image_size, "patch_size": 8},
        "projection_dim": 16,
    }
    if kind.startswith("Siglip"):
        towers.pop("projection_dim")
        towers["text_config"] |= {"max_position_embeddings": 64, "projection_size": 16}
    config = getattr(t, f"{kind.partition('For')[0]}Config")(**towers)
    size = {"height": image_size, "width": image_size}
    tokens = tiny.tokenizer(32)
    tokens.model_input_names = ["input_ids", "attention_mask"]
    if kind.startswith("Siglip"):
        tokens.model_input_names = ["input_ids"]
    model = getattr(t, kind if "For" in kind else f"{kind}Model")(config).eval()
    if "For" not in kind:
        model.logit_scale.data.fill_(4)
    return [model, getattr(t, processor)(size=size, crop_size=size), tokens]


def layoutlm() -> list[Any]:
    import transformers as t

    tokens = tiny.tokenizer(48)
    config = t.LayoutLMConfig(
        **SMALL,
        vocab_size=len(tokens),
        max_position_embeddings=48,
        max_2d_position_embeddings=1024,
    )
    return [t.LayoutLMForQuestionAnswering(config).eval(), tokens]


def donut() -> list[Any]:
    import transformers as t

    tokens = tiny.tokenizer(64)
    tokens.add_special_tokens(
        {
            "additional_special_tokens": [
                "<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>",
            ],
            "eos_token": "</s>",
        }
    )  # fmt: skip
    encoder = t.DonutSwinConfig(
        image_size=[32, 32], patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
        window_size=2, initializer_range=0.8,
    )  # fmt: skip
    decoder = t.MBartConfig(
        vocab_size=len(tokens), d_model=16, decoder_layers=1, decoder_attention_heads=2,
        decoder_ffn_dim=20, max_position_embeddings=64, init_std=0.8, is_decoder=True,
        add_cross_attention=True, bos_token_id=tokens.cls_token_id,
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = tokens.cls_token_id
    config.pad_token_id = tokens.pad_token_id
    model = t.VisionEncoderDecoderModel(config).eval()
    # An answer is what lies between two tokens, of which chance would never write the second.
    end = tokens.convert_tokens_to_ids("</s_answer>")
    model.generation_config.update(max_new_tokens=8, eos_token_id=end, forced_eos_token_id=end)
    processor = t.DonutImageProcessorPil(size={"height": 32, "width": 32})
    return [model, processor, tokens]
