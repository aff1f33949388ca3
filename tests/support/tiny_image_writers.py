"""Tiny random models that read images and write, and what they read, without their processors."""

from __future__ import annotations

from typing import Any

TOKENS, IMAGE, START = 60, 59, 58
TEXT = {
    "vocab_size": TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "initializer_range": 0.8,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
_SEEN = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "initializer_range": 0.8,
}


def _llava() -> Any:
    import transformers as t

    return t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**_SEEN, initializer_factor=4.0),
        text_config=t.LlamaConfig(**TEXT),
        image_token_id=IMAGE,
        vision_feature_layer=-1,
    )


def _idefics() -> Any:
    import transformers as t

    return t.Idefics3Config(
        vision_config={"model_type": "idefics3_vision", **_SEEN},
        text_config=t.LlamaConfig(**TEXT),
        image_token_id=IMAGE,
        scale_factor=1,
        pad_token_id=1,
    )


def _gemma() -> Any:
    import transformers as t

    text = {**TEXT, "head_dim": 8, "sliding_window": 8, "tie_word_embeddings": False}
    return t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**_SEEN),
        text_config=t.Gemma3TextConfig(**text, layer_types=["sliding_attention", "full_attention"]),
        image_token_id=IMAGE,
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
        initializer_range=0.8,
    )


def _paligemma() -> Any:
    import transformers as t

    return t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**_SEEN),
        text_config=t.GemmaConfig(**TEXT, head_dim=8),
        image_token_id=IMAGE,
        projection_dim=16,
        hidden_size=16,
    )


_QWEN_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_QWEN_TOKENS = {
    "image_token_id": IMAGE, "video_token_id": 57, "vision_start_token_id": START,
    "vision_end_token_id": 56,
}  # fmt: skip


def _qwen() -> Any:
    import transformers as t

    return t.Qwen2VLConfig(
        vision_config={
            "embed_dim": 16, "hidden_size": 16, "depth": 2, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 1, "temporal_patch_size": 1, "mlp_ratio": 2,
            "initializer_range": 0.8,
        },
        text_config={**TEXT, "rope_parameters": _QWEN_ROPE},
        **_QWEN_TOKENS,
    )  # fmt: skip


def _qwen_with_states() -> Any:
    import transformers as t

    return t.Qwen3_5Config(
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "depth": 2, "num_heads": 2,
            "patch_size": 8, "spatial_merge_size": 1, "temporal_patch_size": 1,
            "out_hidden_size": 16, "num_position_embeddings": 16, "initializer_range": 0.8,
        },
        text_config={
            **TEXT, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "rope_parameters": {**_QWEN_ROPE, "partial_rotary_factor": 1.0},
        },
        **_QWEN_TOKENS,
    )  # fmt: skip


def _qwen_with_videos() -> Any:
    """Its rows have a video in place of an image."""
    import transformers as t

    return t.Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 24, "depth": 2,
            "num_heads": 2, "patch_size": 8, "spatial_merge_size": 1, "temporal_patch_size": 1,
            "fullatt_block_indexes": [1], "window_size": 16, "tokens_per_second": 2,
            "initializer_range": 0.8,
        },
        text_config={**TEXT, "rope_parameters": _QWEN_ROPE},
        **{**_QWEN_TOKENS, "image_token_id": 57, "video_token_id": IMAGE},
    )  # fmt: skip


def _omni() -> Any:
    """It hears: its rows have sound in place of images."""
    import transformers as t

    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2}
    audio = {
        "num_mel_bins": 8, "encoder_layers": 1, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "d_model": 16, "n_window": 50, "output_dim": 16,
        "max_source_positions": 100,
    }  # fmt: skip
    return t.Qwen2_5OmniThinkerConfig(
        vision_config={**vision, "out_hidden_size": 16, "fullatt_block_indexes": [0]},
        audio_config=audio,
        text_config={**TEXT, "rope_parameters": _QWEN_ROPE},
        audio_token_index=IMAGE,
        image_token_index=57,
        video_token_index=56,
        audio_start_token_id=START,
        audio_end_token_id=55,
        vision_start_token_id=54,
    )


def _phi() -> Any:
    """It hears, too."""
    import transformers as t

    audio = {
        "num_blocks": 1, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
        "input_size": 8, "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16,
        "nemo_conv_channels": 8, "bias_max_distance": 8, "initializer_range": 0.8,
        "audio_token_id": IMAGE, "feature_layer": -1,
    }  # fmt: skip
    return t.Phi4MultimodalConfig(
        **TEXT,
        original_max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        vision_config={**_SEEN, "crop_size": 16, "image_token_id": 57},
        audio_config=audio,
    )


def _florence() -> Any:
    """Its encoder reads images of 64 by 64 pixels and the prompt."""
    import transformers as t

    heads = [2, 2, 2, 2]
    return t.Florence2Config(
        vision_config={
            "depths": [1, 1, 1, 1], "embed_dim": [8, 8, 8, 16], "num_heads": heads,
            "num_groups": heads, "window_size": 4, "projection_dim": 16, "drop_path_rate": 0.0,
            "initializer_range": 0.8,
        },
        text_config=t.BartConfig(
            vocab_size=TOKENS, d_model=16, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
            decoder_ffn_dim=24, max_position_embeddings=256, init_std=0.8, bos_token_id=0,
            pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
        ),
        image_token_id=IMAGE,
        decoder_start_token_id=2,
    )  # fmt: skip


def _mllama() -> Any:
    import transformers as t

    text = {**TEXT, "cross_attention_layers": [1], "vocab_size": TOKENS}
    return t.MllamaConfig(
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "attention_heads": 2, "num_global_layers": 1, "image_size": 16, "patch_size": 8,
            "vision_output_dim": 32, "intermediate_layers_indices": [1], "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]], "initializer_range": 0.8,
        },
        text_config=text,
        image_token_index=IMAGE,
    )  # fmt: skip


CONFIGS = {
    "llava": _llava,
    "idefics": _idefics,
    "gemma": _gemma,
    "paligemma": _paligemma,
    "qwen": _qwen,
    "qwen with states": _qwen_with_states,
    "qwen with videos": _qwen_with_videos,
    "florence": _florence,
    "mllama": _mllama,
    "omni": _omni,
    "phi": _phi,
}


def make_pipeline(kind: str) -> Any:
    """A pipeline of a model of this kind. What stands before `_forward` is another model's."""
    import torch
    import transformers as t

    from tests.support import tiny_generators

    torch.manual_seed(5)
    auto = t.AutoModelForCausalLM if kind == "phi" else t.AutoModelForImageTextToText
    model = auto.from_config(CONFIGS[kind]()).eval()
    for parameter in model.parameters():  # some kinds begin with zeros, or with small numbers
        # Florence's norms would make each token the same.
        if parameter.std(unbiased=False) < 0.1 and (kind != "florence" or parameter.dim() > 1):
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.update(eos_token_id=2, pad_token_id=1)
    tokens = tiny_generators.words(256)
    processor = t.LlavaProcessor(t.CLIPImageProcessor(), tokens)
    return t.pipeline("image-text-to-text", model=model, processor=processor, tokenizer=tokens)


def make_inputs(kind: str, seed: int, images: int = 1) -> dict[str, Any]:
    """What `_forward` takes for a row: a text of another length, with images in it."""
    import torch

    random = torch.Generator().manual_seed(seed)
    # In Qwen's, of the row's own height.
    height = 2 + seed % 3 if kind.startswith("qwen") else 2
    frames = 16 + 8 * (seed % 3)  # of sound: a fourth of them become tokens
    tokens = {"mllama": 1, "florence": 5, "omni": frames // 4, "phi": frames // 8}.get(kind)
    shown = [START, *[IMAGE] * 2 * height] if tokens is None else [IMAGE] * tokens
    before = torch.randint(3, 50, (1 + seed % 4,), generator=random).tolist()
    after = torch.randint(3, 50, (1 + seed % 7,), generator=random).tolist()
    ids = torch.tensor([[0, *before, *shown * images, *after]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "text": str(seed)}
    if not images:
        return inputs
    if kind == "omni":
        inputs["input_features"] = torch.randn(images, 8, frames, generator=random)
        inputs["feature_attention_mask"] = torch.ones(images, frames, dtype=torch.long)
        return inputs
    if kind == "phi":
        inputs["audio_input_features"] = torch.randn(images, frames, 8, generator=random)
        inputs["audio_embed_sizes"] = torch.tensor([frames // 8] * images)
        inputs["audio_attention_mask"] = torch.ones(images, frames, dtype=torch.bool)
        return inputs
    is_image = (ids == IMAGE).long()
    size = (64, 64) if kind == "florence" else (8 * height, 16)
    pixels = torch.randn(images, 3, *size, generator=random)
    if kind == "idefics":
        inputs["pixel_values"] = pixels[None]
        inputs["pixel_attention_mask"] = torch.ones_like(pixels[None, :, 0], dtype=torch.bool)
    elif kind == "qwen with videos":
        cut = pixels.unflatten(3, (2, 8)).unflatten(2, (height, 8)).permute(0, 2, 4, 1, 3, 5)
        inputs["pixel_values_videos"] = cut.reshape(images * height * 2, -1)
        # Two frames: their positions depend on the seconds between them.
        inputs["video_grid_thw"] = torch.tensor([[2, height, 1]] * images)
        inputs["second_per_grid_ts"] = torch.tensor([0.5 + seed % 3] * images)
        inputs["mm_token_type_ids"] = 2 * is_image
    elif kind.startswith("qwen"):
        cut = pixels.unflatten(3, (2, 8)).unflatten(2, (height, 8)).permute(0, 2, 4, 1, 3, 5)
        inputs["pixel_values"] = cut.reshape(images * height * 2, -1)
        inputs["image_grid_thw"] = torch.tensor([[1, height, 2]] * images)
        inputs["mm_token_type_ids"] = is_image
    elif kind == "mllama":
        inputs["pixel_values"] = pixels[None, :, None]
        inputs["aspect_ratio_ids"] = torch.ones(1, images, dtype=torch.long)
        inputs["aspect_ratio_mask"] = torch.ones(1, images, 1, dtype=torch.long)
        shows = ids.shape[1] - int(is_image.argmax())
        mask = torch.zeros(1, ids.shape[1], images, 1, dtype=torch.long)
        mask[:, -shows:] = 1
        inputs["cross_attention_mask"] = mask
    else:
        inputs["pixel_values"] = pixels
    if kind == "gemma":
        inputs["token_type_ids"] = is_image
    if kind == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs
