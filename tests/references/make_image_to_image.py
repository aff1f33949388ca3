"""Answers for image-to-image: pictures of twice the size, in `images/larger/`."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import transformers

from tests.references import answers, more_models, pictures


def make() -> None:
    pictures.make()
    models()

    def kept(answer: Any) -> Any:
        if isinstance(answer, list):
            return [kept(image) for image in answer]
        (pictures.FOLDER / "larger").mkdir(exist_ok=True)
        name = f"larger/{hashlib.sha256(answer.tobytes()).hexdigest()[:8]}.png"
        answer.save(pictures.FOLDER / name)
        return name

    answers.write("image-to-image", cases(), kept)


def models() -> None:
    torch.manual_seed(19)
    config = transformers.Swin2SRConfig(
        image_size=16, patch_size=1, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        upscale=2, upsampler="pixelshuffledirect",
    )  # fmt: skip
    model = more_models.spread(transformers.Swin2SRForImageSuperResolution(config), 0.2)
    more_models.save("swin2sr", model, transformers.Swin2SRImageProcessor(pad_size=4))


def cases() -> list[dict[str, Any]]:
    images = pictures.NAMES
    return [
        {"model": "swin2sr", "input": images},
        {"model": "swin2sr", "input": images[0]},
        {"model": "swin2sr", "input": images[1:3], "called": {"timeout": 3.0, "batch_size": 1}},
        {"model": "swin2sr", "input": images[3], "made": {"nonsense": 1}},
        {"model": "swin2sr", "input": []},
        {"model": "swin2sr", "input": "no such file"},
        {"model": "swin2sr", "input": 7},
    ]


if __name__ == "__main__":
    make()
