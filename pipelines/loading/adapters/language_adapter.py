"""Set the language of speech models that have weights of their own for each, as MMS has."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


def set_language(pipeline: Any, parameters: Mapping[str, Any]) -> None:
    """Give the model and its tokenizer the language that the parameter `target_lang` names.

    Raises:
        ValueError: the model has no weights of languages, or not of this one.
    """
    language = parameters.get("target_lang")
    if language is None:
        return
    model, tokenizer = pipeline.model, pipeline.tokenizer
    has_adapters = getattr(model.config, "adapter_attn_dim", None) is not None
    # Of a single language, the vocabulary is that of the encoder.
    if not has_adapters or tokenizer.vocab == tokenizer.encoder:
        raise ValueError(
            f"target_lang is for models with weights of several languages, such as MMS, and "
            f"{type(model).__name__} has none: leave it out"
        )
    known = tokenizer.vocab
    if language not in known:
        near = ", ".join(get_close_matches(language, known, n=5)) or ", ".join(sorted(known)[:40])
        raise ValueError(f"target_lang: the model has no language {language!r}; there are {near}")
    tokenizer.set_target_lang(language)
    if model.device.type == "meta":  # it only makes chunks, which are of no language
        return
    try:
        model.load_adapter(language, revision=getattr(model.config, "_commit_hash", None))
    except OSError as error:
        raise ValueError(
            f"target_lang: the model's folder has no adapter.{language}.safetensors, the weights "
            f"of that language"
        ) from error
