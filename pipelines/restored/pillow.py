"""What the pipelines for pictures say where Pillow is missing."""

from __future__ import annotations

from transformers.utils import requires_backends


class ImageProcessorFlag:
    """`_load_image_processor` of a pipeline that needs one: true, or an ImportError without Pillow.

    transformers asks for it before it looks for an image processor; without Pillow that fails with
    a list of classes that could not be imported.
    """

    def __get__(self, pipeline: object, kind: type) -> bool:
        requires_backends(kind, "vision")
        return True
