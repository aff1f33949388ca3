"""Answers for image-to-text."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from tests.references import answers, more_models, pictures
from tests.support import tiny

SHORT = {"max_new_tokens": 8}
BEAMS = {"generate_kwargs": {"num_beams": 3, "max_new_tokens": 7}}
LINES = {"generate_kwargs": {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5}}


def make() -> None:
    pictures.make()
    models()
    answers.write("image-to-text", [*captions(), *errors()])


def models() -> None:
    words = more_models.byte_tokenizer()
    torch.manual_seed(11)
    settings: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "initializer_range": 0.6,
    }
    vit = transformers.ViTConfig(image_size=32, patch_size=8, **settings)
    gpt = transformers.GPT2Config(
        vocab_size=len(words), n_positions=300, n_embd=16, n_layer=1, n_head=2,
        initializer_range=0.6, add_cross_attention=True, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, gpt)
    config.decoder_start_token_id, config.pad_token_id = 0, 1
    captions = more_models.spread(transformers.VisionEncoderDecoderModel(config), 0.8)
    captions.generation_config.update(decoder_start_token_id=0, pad_token_id=1, eos_token_id=2)
    eyes = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    more_models.save("vit_gpt2", captions, words, eyes)

    pieces = tiny.tokenizer(32)
    pieces.model_input_names = ["input_ids", "attention_mask"]
    config = blip_config(len(pieces))
    torch.manual_seed(0)
    blip = transformers.BlipForConditionalGeneration(config)
    more_models.save("blip_caption", more_models.spread(blip, 0.5), pieces, blip_eyes())

    settings["hidden_act"] = "gelu"
    config = transformers.GitConfig(
        vision_config={**settings, "image_size": 32, "patch_size": 8}, vocab_size=len(pieces),
        max_position_embeddings=300, bos_token_id=2, eos_token_id=3, pad_token_id=0, **settings,
    )  # fmt: skip
    git = more_models.spread(transformers.GitForCausalLM(config), 0.5)
    eyes = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    more_models.save("git", git, pieces, eyes)


def blip_config(vocabulary: int) -> transformers.BlipConfig:
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    text = {
        "vocab_size": vocabulary,
        "encoder_hidden_size": 16,
        "max_position_embeddings": 300,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    torch.manual_seed(13)
    return transformers.BlipConfig(
        text_config={**shape, **text},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        image_text_hidden_size=16,
    )


def blip_eyes() -> transformers.BlipImageProcessor:
    return transformers.BlipImageProcessor(size={"height": 32, "width": 32})


def captions() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = [
        {"called": SHORT},
        {"made": SHORT},
        {"called": BEAMS},
        {"called": LINES},
        {"called": {**SHORT, "generate_kwargs": {"min_length": 6, "num_beams": 2}}},
        {"called": {**SHORT, "timeout": 3.0, "batch_size": 1}},
    ]
    images = pictures.NAMES
    return [
        *(
            {"model": model, "input": images, **case}
            for model in ("vit_gpt2", "blip_caption")
            for case in cases
        ),
        {"model": "vit_gpt2", "input": images[0]},
        {"model": "blip_caption", "input": images[0]},
        {"model": "blip_caption", "input": images, "called": {**SHORT, "prompt": "the old mill"}},
        {"model": "blip_caption", "input": images[:2], "made": {"prompt": "red"}, "called": SHORT},
        {"model": "git", "input": images, "called": SHORT},
        {"model": "git", "input": images, "called": BEAMS},
        {"model": "git", "input": images, "called": {**SHORT, "prompt": "the old mill"}},
        {"model": "vit_gpt2", "input": []},
    ]


def errors() -> list[dict[str, Any]]:
    twice = {**SHORT, "generate_kwargs": {"max_new_tokens": 3}}
    return [
        {"model": "vit_gpt2", "input": "wide.png", "called": twice},
        {"model": "vit_gpt2", "input": "wide.png", "called": {"prompt": "a mill"}},
        {"model": "vit_gpt2", "input": "wide.png", "called": {"prompt": ["a mill"]}},
        {"model": "vit_gpt2", "input": "wide.png", "called": {"num_beams": 2}},
        {"model": "vit_gpt2", "input": "wide.png", "called": {"nonsense": 2}},
        {"model": "vit_gpt2", "input": "no such file"},
        {"model": "vit_gpt2", "input": 7},
        {"model": "vit_gpt2", "input": None},
    ]


if __name__ == "__main__":
    make()
