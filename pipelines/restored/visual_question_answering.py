"""visual-question-answering (alias vqa): the answer to a question about a picture."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import GenerationConfig
from transformers.image_utils import load_image
from transformers.models.auto.modeling_auto import MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES
from transformers.pipelines.pt_utils import KeyDataset

from .generation_config import GeneratingPipeline
from .pillow import ImageProcessorFlag


class VisualQuestionAnsweringPipeline(GeneratingPipeline):
    """Turns `{"image": …, "question": …}` into answers, best first.

    A model that classifies (ViLT) gives `{"score", "answer"}` for the `top_k` (5) best of its
    labels; one that generates (BLIP) gives `{"answer"}`, with at most 256 new tokens unless its
    settings or the pipeline's arguments say otherwise.
    Parameters: `top_k`, `padding` and `truncation` of the question, `timeout` (seconds, for URLs).
    Others are ignored.
    """

    default_model: ClassVar = {"model": ("dandelin/vilt-b32-finetuned-vqa", "d0a1f6a")}
    _load_image_processor = ImageProcessorFlag()
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        padding: Any = None,
        truncation: Any = None,
        timeout: float | None = None,
        **_: Any,
    ) -> tuple[dict, dict, dict]:
        before = {"padding": padding, "truncation": truncation, "timeout": timeout}
        return (
            {name: value for name, value in before.items() if value is not None},
            self.assistants(),
            {} if top_k is None else {"top_k": top_k},
        )

    def __call__(self, image: Any, question: Any = None, **kwargs: Any) -> Any:
        """Return a list of answers for one image and question, and a list of those for several.

        With several images and several questions, every question is asked about every image, in
        the order of the questions. Without `question`, `image` is an input or a list of inputs.
        """
        # Here, because every task restores all pipelines, and few need Pillow.
        from PIL import Image

        images, one_image = _to_list(image, (Image.Image, str))
        questions, one_question = _to_list(question, str)
        inputs = image
        if images is not None and questions is not None:
            inputs = [{"image": i, "question": q} for q in questions for i in images]
            if one_image and one_question:
                (inputs,) = inputs
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self,
        inputs: dict[str, Any],
        padding: Any = False,
        truncation: Any = False,
        timeout: float | None = None,
    ) -> Any:
        image = load_image(inputs["image"], timeout=timeout)
        encoded = self.tokenizer(
            inputs["question"], return_tensors="pt", padding=padding, truncation=truncation
        )
        encoded.update(self.image_processor(images=image, return_tensors="pt").to(self.dtype))
        return encoded

    def _forward(self, model_inputs: Any, **generate_kwargs: Any) -> Any:
        if self.model.can_generate():
            return self.generate(model_inputs, generate_kwargs)
        return self.model(**model_inputs)

    def postprocess(self, model_outputs: Any, top_k: int = 5) -> list[dict[str, Any]]:
        if self.model.can_generate():
            return [{"answer": self.decode(ids).strip()} for ids in model_outputs]
        labels = self.model.config.id2label
        # A question may have several right answers, so each label has a separate probability.
        probabilities = model_outputs.logits.sigmoid()[0]
        scores, ids = probabilities.topk(min(top_k, self.model.config.num_labels))
        return [
            {"score": score, "answer": labels[i]}
            for score, i in zip(scores.tolist(), ids.tolist(), strict=True)
        ]


def _to_list(value: Any, types: Any) -> tuple[Any, bool]:
    """Return a value of these types as a list, and whether it was a single one.

    A list of them, or a dataset, is returned as it is; None for anything else.
    """
    if isinstance(value, types):
        return [value], True
    if isinstance(value, KeyDataset):
        return value, False
    if isinstance(value, list) and all(isinstance(item, types) for item in value):
        return value, False
    return None, False
