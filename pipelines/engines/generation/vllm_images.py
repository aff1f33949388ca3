"""Images of prompts, which vLLM prepares itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# The input of a prompt that holds its images.
IMAGES = "images"
# Settings of a processor that are its tokenizer's.
_OF_TOKENIZER = ("add_special_tokens", "truncation", "max_length", "padding")


def leave_images(processor: Any) -> None:
    """Let a processor give images as they are, and the marks for them: vLLM does the rest."""
    usual = type(processor)

    def read(self: Any, images: Any = None, text: Any = None, **settings: Any) -> Any:
        from transformers import BatchFeature

        if more := [name for name in ("videos", "audio") if settings.get(name) is not None]:
            raise ValueError(
                f"the engine vllm (model.engine) reads texts and images, and not {more[0]}: take "
                "the engine auto"
            )
        named = {name: settings[name] for name in _OF_TOKENIZER if name in settings}
        texts = [text] if isinstance(text, str) else text
        tokens = self.tokenizer(texts, return_tensors="pt", **named)
        return BatchFeature({**tokens, IMAGES: list(_flatten(images))})

    processor.__class__ = type(usual.__name__, (usual,), {"__call__": read})


def _flatten(images: Any) -> Iterator[Any]:
    if isinstance(images, list | tuple):
        for one in images:
            yield from _flatten(one)
    elif images is not None:
        yield images
