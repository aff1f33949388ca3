"""translation and translation_xx_to_yy: a text in another language."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from .text2text_generation import Text2TextGenerationPipeline

_T5_BASE = {"model": ("google-t5/t5-base", "a9723ea")}


class TranslationPipeline(Text2TextGenerationPipeline):
    """Turns a text into `{"translation_text": …}`.

    It takes the parameters of text2text-generation, and `src_lang` and `tgt_lang`: the codes of
    the two languages in the model's tokenizer. Models for one language pair need no codes. A task
    like `translation_en_to_de` names them, too; its codes win over those given when the pipeline
    was made.
    """

    default_model: ClassVar = {("en", other): _T5_BASE for other in ("fr", "de", "ro")}
    return_name = "translation"

    def __init__(self, model: Any, *args: Any, task: str = "", **kwargs: Any) -> None:
        super().__init__(model, *args, task=_find_language_pair(task, model), **kwargs)

    def _sanitize_parameters(
        self, *, src_lang: str | None = None, tgt_lang: str | None = None, **kwargs: Any
    ) -> tuple[dict, dict, dict]:
        before, forward, after = super()._sanitize_parameters(**kwargs)
        if src_lang is None and tgt_lang is None:
            words = self.task.split("_")
            if len(words) == 4:
                src_lang, tgt_lang = words[1], words[3]
        languages = {"src_lang": src_lang, "tgt_lang": tgt_lang}
        before.update({name: code for name, code in languages.items() if code is not None})
        return before, forward, after

    def preprocess(
        self,
        inputs: Any,
        truncation: Any = False,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **_: Any,
    ) -> Any:
        build = getattr(self.tokenizer, "_build_translation_inputs", None)
        if build is None:
            return super().preprocess(inputs, truncation=truncation)
        return build(
            inputs, return_tensors="pt", truncation=truncation, src_lang=src_lang, tgt_lang=tgt_lang
        )


def _find_language_pair(task: str, model: Any) -> str:
    """Return the task; if it names no languages, the first pair that the model has settings for."""
    settings = getattr(model.config, "task_specific_params", None) or {}
    pairs = [name for name in settings if name.startswith("translation")]
    if task != "translation" or not pairs:
        return task
    warnings.warn(
        f"the task names no languages (translation_XX_to_YY); it becomes {pairs[0]!r}, which the"
        " model has settings for",
        stacklevel=4,
    )
    return pairs[0]
