"""image-to-image: a picture from a picture, for example a larger one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from transformers import Pipeline
from transformers.image_utils import load_image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES

from .pillow import ImageProcessorFlag

if TYPE_CHECKING:
    from PIL import Image


class ImageToImagePipeline(Pipeline):
    """Turns an image (PIL, path or URL) into a PIL image, and a list of images into a list.

    Parameters: `timeout` (seconds, for URLs). Others are ignored.
    """

    default_model: ClassVar = {"model": ("caidas/swin2SR-classical-sr-x2-64", "cee1c92")}
    _load_processor = False
    _load_image_processor = ImageProcessorFlag()
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if kwargs.get("head_mask") is not None:
            raise ValueError("models of transformers 5 do not take head_mask: leave it out")
        return {"timeout": kwargs["timeout"]} if "timeout" in kwargs else {}, {}, {}

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        if isinstance(images, list) and not images:
            return []
        return super().__call__(images, **kwargs)

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        image = load_image(image, timeout=timeout)
        return self.image_processor(images=[image], return_tensors="pt").to(self.dtype)

    def _forward(self, model_inputs: Any) -> Any:
        return self.model(**model_inputs)

    def postprocess(self, model_outputs: Any) -> Any:
        images = [_to_image(pixels) for pixels in model_outputs.reconstruction]
        return images[0] if len(images) == 1 else images


def _to_image(pixels: Any) -> Image.Image:
    """Convert floats of shape (channels, height, width) to a PIL image; 0 is black, 1 is white."""
    from PIL import Image  # here, because every task restores all pipelines, and few need Pillow

    shown = pixels.detach().squeeze().float().cpu().clamp(0, 1).numpy()
    return Image.fromarray((np.moveaxis(shown, 0, -1) * 255.0).round().astype(np.uint8))
