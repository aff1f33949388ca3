"""A clear error of the pipelines for pictures if Pillow is not installed."""

from __future__ import annotations

from transformers.utils import requires_backends


class ImageProcessorFlag:
    """`_load_image_processor` of a pipeline: true, or an ImportError without Pillow.

    transformers reads it before it looks for an image processor. Without Pillow that search fails
    with a list of classes that could not be imported.
    """

    def __get__(self, pipeline: object, pipeline_class: type) -> bool:
        requires_backends(pipeline_class, "vision")
        return True
