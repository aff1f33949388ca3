"""image-to-text: a picture's caption."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import GenerationConfig
from transformers.image_utils import load_image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from .generation_config import GeneratingPipeline
from .pillow import ImageProcessorFlag


class ImageToTextPipeline(GeneratingPipeline):
    """Turns an image (PIL, path or URL) into `{"generated_text": …}`.

    Parameters: `max_new_tokens` (256), `generate_kwargs` (a dictionary for `generate`), `prompt`
    (the beginning of the caption, for models that take one), `timeout` (seconds, for URLs).
    A `prompt` that is not a text, or that the model can't take, raises ValueError.
    """

    default_model: ClassVar = {"model": ("ydshieh/vit-gpt2-coco-en", "5bebf1e")}
    _load_image_processor = ImageProcessorFlag()
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)

    def _sanitize_parameters(
        self,
        max_new_tokens: int | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        prompt: str | None = None,
        timeout: float | None = None,
    ) -> tuple[dict, dict, dict]:
        generate_kwargs = dict(generate_kwargs or {})
        if max_new_tokens is not None:
            if "max_new_tokens" in generate_kwargs:
                raise ValueError(
                    "`max_new_tokens` is given twice, as an argument and inside `generate_kwargs`: "
                    "leave one out"
                )
            generate_kwargs["max_new_tokens"] = max_new_tokens
        before = {"prompt": prompt, "timeout": timeout}
        return (
            {name: value for name, value in before.items() if value is not None},
            {**generate_kwargs, **self.assistants()},
            {},
        )

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Return a list of one record for an image, and a list of those for several images."""
        inputs = kwargs.pop("images", inputs)
        if inputs is None:
            raise ValueError("Cannot call the image-to-text pipeline without an inputs argument!")
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self, image: Any, prompt: str | None = None, timeout: float | None = None
    ) -> Any:
        image = load_image(image, timeout=timeout)
        model_type = self.model.config.model_type
        if prompt is not None and not isinstance(prompt, str):
            raise ValueError(f"`prompt` must be one text, not {prompt!r}")
        if prompt is not None and model_type == "vision-encoder-decoder":
            raise ValueError(
                f"models of the type {model_type} do not take a `prompt`: leave it out"
            )
        is_pix2struct = model_type == "pix2struct"
        header = {"header_text": prompt} if prompt is not None and is_pix2struct else {}
        inputs = self.image_processor(images=image, return_tensors="pt", **header).to(self.dtype)
        if model_type == "git":
            inputs["input_ids"] = None if prompt is None else self._make_git_prompt(prompt)
        elif prompt is not None and not is_pix2struct:
            inputs.update(self.tokenizer(prompt, return_tensors="pt"))
        return inputs

    def _make_git_prompt(self, prompt: str) -> torch.Tensor:
        # A caption begins with the class token and does not end where the prompt does.
        ids = self.tokenizer(text=prompt, add_special_tokens=False).input_ids
        return torch.tensor([[self.tokenizer.cls_token_id, *ids]])

    def _forward(self, model_inputs: Any, **generate_kwargs: Any) -> Any:
        inputs = dict(model_inputs)
        # For a batch of images, GIT's `input_ids` are a list of None.
        if isinstance(inputs.get("input_ids"), list):
            inputs["input_ids"] = None
        return self.generate(inputs, generate_kwargs)

    def postprocess(self, model_outputs: Any) -> list[dict[str, str]]:
        return [{"generated_text": self.decode(ids)} for ids in model_outputs]
