"""Tiny random models that see, built from configurations, with image processors on pillow.

Their weights are spread out (`initializer_range`): otherwise all pictures get nearly the same
answer, and a swapped one goes unseen.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import tiny
from tests.support.tiny_image_texts import SMALL, donut, layoutlm, two_towers


def labels(count: int) -> dict[str, Any]:
    names = tiny.WORDS[20 : 20 + count]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _vit(head: str = "ForImageClassification") -> list[Any]:
    import transformers as t

    config = t.ViTConfig(**SMALL, image_size=16, patch_size=4, **labels(7))
    size = {"height": 16, "width": 16}
    return [getattr(t, f"ViT{head}")(config).eval(), t.ViTImageProcessorPil(size=size)]


def _resnet(*widths: int, **more: Any) -> Any:
    import transformers as t

    return t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=list(widths),
        depths=[1] * len(widths),
        layer_type="basic",
        **more,
    )


def _convolutions() -> list[Any]:
    import transformers as t

    size = {"shortest_edge": 32}
    return [t.ResNetModel(_resnet(8, 12)).eval(), t.ConvNextImageProcessorPil(size=size)]


def _yolos() -> list[Any]:
    import transformers as t

    config = t.YolosConfig(
        **SMALL, image_size=[32, 32], patch_size=8, num_detection_tokens=6, **labels(5)
    )
    model = t.YolosForObjectDetection(config).eval()
    model.vit.embeddings.detection_tokens.data.normal_()
    size = {"shortest_edge": 24, "longest_edge": 48}
    return [model, t.YolosImageProcessorPil(size=size)]


def _detr(head: str) -> list[Any]:
    import transformers as t

    config = t.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=_resnet(8, 8, 8, 12, out_features=[f"stage{i}" for i in (1, 2, 3, 4)]),
        d_model=32,  # with a heat map for each of 8 heads: 40, in groups of 8
        num_queries=12,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        init_std=0.8,
        **labels(5),
    )
    model = getattr(t, f"Detr{head}")(config).eval()
    if head == "ForSegmentation":
        model.mask_head.output_conv.weight.data.mul_(50)
    return [model, t.DetrImageProcessorPil(size={"shortest_edge": 24, "longest_edge": 48})]


def _segformer() -> list[Any]:
    import transformers as t

    config = t.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        initializer_range=0.8,
        **labels(6),
    )
    size = {"height": 32, "width": 32}
    model = t.SegformerForSemanticSegmentation(config).eval()
    return [model, t.SegformerImageProcessorPil(size=size)]


def _depth() -> list[Any]:
    import transformers as t

    config = t.DPTConfig(
        **{**SMALL, "num_hidden_layers": 4, "initializer_range": 0.2},
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 12, 12],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    size = {"height": 32, "width": 32}
    return [t.DPTForDepthEstimation(config).eval(), t.DPTImageProcessorPil(size=size)]


def _sam() -> list[Any]:
    import transformers as t

    vision = {
        **SMALL,
        "image_size": 32,
        "patch_size": 4,
        "output_channels": 16,
        "num_pos_feats": 8,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 20,
    }
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 4, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = t.SamConfig(
        vision_config=vision,
        prompt_encoder_config={**prompt, "image_embedding_size": 8},
        mask_decoder_config=decoder,
        initializer_range=0.8,
    )
    size = {"longest_edge": 32}
    pad = {"height": 32, "width": 32}
    return [t.SamModel(config).eval(), t.SamImageProcessorPil(size=size, pad_size=pad)]


def _keypoints() -> list[Any]:
    import transformers as t

    points = t.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 16],
        decoder_hidden_size=16,
        keypoint_decoder_dim=65,
        descriptor_decoder_dim=16,
        keypoint_threshold=0.0,
        max_keypoints=12,
        border_removal_distance=1,
        initializer_range=0.3,
    )
    config = t.SuperGlueConfig(
        keypoint_detector_config=points,
        hidden_size=16,
        keypoint_encoder_sizes=[16],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=2,
        sinkhorn_iterations=5,
        matching_threshold=0.0,
        initializer_range=0.3,
    )
    size = {"height": 32, "width": 40}
    model = t.SuperGlueForKeypointMatching(config).eval()
    return [model, t.SuperGlueImageProcessorPil(size=size)]


def _video(frames: int = 4) -> list[Any]:
    import transformers as t

    config = t.VideoMAEConfig(
        **SMALL, image_size=16, patch_size=8, num_frames=frames, tubelet_size=2, **labels(7)
    )
    size = {"height": 16, "width": 16}
    model = t.VideoMAEForVideoClassification(config).eval()
    processor = t.VideoMAEImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
    return [model, processor]


PARTS: dict[str, Callable[[], list[Any]]] = {
    "depth-estimation": _depth,
    "document-question-answering": layoutlm,
    "document-question-answering-donut": donut,
    "image-classification": _vit,
    "image-feature-extraction": lambda: _vit("Model"),
    "image-feature-extraction-convolutions": _convolutions,
    "image-segmentation": _segformer,
    "image-segmentation-detr": lambda: _detr("ForSegmentation"),
    "keypoint-matching": _keypoints,
    "mask-generation": _sam,
    "object-detection": lambda: _detr("ForObjectDetection"),
    "object-detection-yolos": _yolos,
    "video-classification": _video,
    "video-classification-16": lambda: _video(16),
    "zero-shot-image-classification": lambda: two_towers("CLIP", "CLIPImageProcessorPil", 16),
    "zero-shot-image-classification-siglip": lambda: two_towers(
        "Siglip", "SiglipImageProcessorPil", 16
    ),
    "zero-shot-object-detection": lambda: two_towers(
        "OwlViTForObjectDetection", "OwlViTImageProcessorPil", 32
    ),
}
# Kept with their weights, for the answers of transformers 4.57.6 beside them.
_KEPT = {
    "image-to-image": "swin2sr",
    "image-to-text": "vit_gpt2",
    "image-to-text-blip": "blip_caption",
    "visual-question-answering": "vilt",
    "visual-question-answering-blip": "blip_vqa",
}


def _save(name: str, folder: Path) -> None:
    import torch

    torch.manual_seed(5)  # with it, every model's answers differ
    for part in PARTS[name]():
        part.save_pretrained(folder)


MODELS: dict[str, Callable[[Path], Any]] = {
    **{name: partial(_save, name) for name in PARTS},
    **{
        name: partial(shutil.copytree, Path(__file__).parent.parent / "references/models" / kept)
        for name, kept in _KEPT.items()
    },
}
