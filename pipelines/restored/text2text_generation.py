"""text2text-generation and summarization: a text from a text, by an encoder and a decoder."""

from __future__ import annotations

import enum
import warnings
from typing import Any, ClassVar

from transformers import GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from .generation_config import GeneratingPipeline


class ReturnType(enum.Enum):
    """What a pipeline returns: token ids or text."""

    TENSORS = 0
    TEXT = 1


class Text2TextGenerationPipeline(GeneratingPipeline):
    """Turns a text into `{"generated_text": …}`, one for each of `num_return_sequences`.

    Parameters: `return_tensors` for token ids (`generated_token_ids`) instead of the text,
    `return_type` for either, `clean_up_tokenization_spaces` (False), `truncation` to the model's
    length, `stop_sequence` (its first token ends the text), and those of `generate`, of which
    `max_new_tokens` is 256 and `num_beams` 4, unless given.

    `max_length` counts only if `max_new_tokens` is None or the model's settings have a
    `max_length`. An input that is not a text raises TypeError.
    """

    default_model: ClassVar[dict[Any, Any]] = {"model": ("google-t5/t5-base", "a9723ea")}
    _default_generation_config = GenerationConfig(max_new_tokens=256, num_beams=4)
    return_name = "generated"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)

    def _sanitize_parameters(
        self,
        *,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        return_type: ReturnType | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        truncation: Any = None,
        stop_sequence: str | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict, dict, dict]:
        # `return_text` is part of the signature, but never had an effect.
        if return_type is None and return_tensors is not None:
            return_type = ReturnType.TENSORS if return_tensors else ReturnType.TEXT
        if not (return_type is None or isinstance(return_type, ReturnType)):
            raise ValueError(f"return_type is {return_type!r}; give a ReturnType or return_tensors")
        if stop_sequence is not None:
            generate_kwargs["eos_token_id"] = self._stop_token(stop_sequence)
        after = {
            "return_type": return_type,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        return (
            {} if truncation is None else {"truncation": truncation},
            {**generate_kwargs, **self.assistants()},
            {name: value for name, value in after.items() if value is not None},
        )

    def _stop_token(self, stop_sequence: str) -> int:
        first, *others = self.tokenizer.encode(stop_sequence, add_special_tokens=False)
        if others:
            warnings.warn(
                f"stop_sequence {stop_sequence!r} has {1 + len(others)} tokens; the text ends"
                " at the first of them",
                stacklevel=4,
            )
        return first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a list of records for a text, and a list of those for a list of texts.

        For a list of texts, lists of a single record are unwrapped; for one text they are not.
        """
        texts = args[0] if args else None
        if isinstance(texts, list) and not texts:
            return []
        answers = super().__call__(*args, **kwargs)
        only_texts = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        if only_texts and all(len(records) == 1 for records in answers):
            return [record for (record,) in answers]
        return answers

    def preprocess(self, inputs: Any, truncation: Any = False, **_: Any) -> Any:
        prefix = self.prefix or ""
        is_list = isinstance(inputs, list)
        if is_list:
            if self.tokenizer.pad_token_id is None:
                raise ValueError("a list of texts needs a tokenizer with a pad_token_id")
            texts: Any = [prefix + text for text in inputs]
        elif isinstance(inputs, str):
            texts = prefix + inputs
        else:
            raise TypeError(f"the input must be a text or a list of texts, not {inputs!r}")
        encoded = self.tokenizer(texts, padding=is_list, truncation=truncation, return_tensors="pt")
        encoded.pop("token_type_ids", None)  # `generate` refuses it
        return encoded

    def _forward(self, model_inputs: Any, **generate_kwargs: Any) -> dict[str, Any]:
        rows = model_inputs["input_ids"].shape[0]
        output_ids = self.generate(model_inputs, generate_kwargs)
        return {"output_ids": output_ids.reshape(rows, -1, *output_ids.shape[1:])}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_type: ReturnType = ReturnType.TEXT,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[dict[str, Any]]:
        sequences = model_outputs["output_ids"][0]
        if return_type is ReturnType.TENSORS:
            return [{f"{self.return_name}_token_ids": ids} for ids in sequences]
        return [
            {f"{self.return_name}_text": self.decode(ids, clean_up_tokenization_spaces)}
            for ids in sequences
        ]


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Turns a text into `{"summary_text": …}`; parameters as for text2text-generation."""

    default_model: ClassVar = {"model": ("sshleifer/distilbart-cnn-12-6", "a4f8f3e")}
    return_name = "summary"
