"""Tokenize texts for their vectors: as sentence-transformers does where its folder is followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..text import model_limits, windows
from .embedding_recipe import EmbeddingRecipe


def prepare_tokenizer(pipeline: Any, recipe: EmbeddingRecipe) -> None:
    """Make the pipeline's tokenizer treat texts as sentence-transformers makes it do."""
    if not recipe.as_sentence_transformers:
        return
    tokenizer, longest = pipeline.tokenizer, recipe.max_seq_length
    if longest is None:
        positions = getattr(pipeline.model.config, "max_position_embeddings", -1)
        limits = [tokenizer.model_max_length, *([positions] if positions != -1 else [])]
        longest = min(limits)
    tokenizer.model_max_length = longest
    if recipe.lowercases:
        _lowercase(tokenizer)


def _lowercase(tokenizer: Any) -> None:
    from tokenizers import normalizers

    if not tokenizer.is_fast:
        raise ValueError(
            "the model's folder asks for lower-case texts (do_lower_case), which needs a fast "
            f"tokenizer, and {type(tokenizer).__name__} is not one: make the texts lower case, and "
            "set parameters.pooling"
        )
    backend = tokenizer.backend_tokenizer
    current: Any = backend.normalizer
    steps: list[Any] = [] if current is None else [current]
    if type(current).__name__ == "Sequence":
        steps = list(current)
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def merge_tokenize_kwargs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with those in `tokenize_kwargs` among them.

    Raises:
        ValueError: for a name in `tokenize_kwargs` that is unknown, or that is given outside, too.
    """
    inner = parameters.get("tokenize_kwargs") or {}
    for name, value in inner.items():
        known = windows.PARAMETERS.get(name)
        if known is None:
            names = ", ".join(windows.PARAMETERS)
            raise ValueError(f"tokenize_kwargs takes {names}, not {name!r}")
        known.validate(f"tokenize_kwargs: {name}", value)
        if parameters.get(name, known.default) != known.default:
            raise ValueError(
                f"{name} is given twice, in tokenize_kwargs and outside it: leave one out"
            )
    return {**parameters, **inner}


def find_chunk_limit(
    pipeline: Any, recipe: EmbeddingRecipe, truncation: bool | str | None
) -> int | None:
    """Return the most tokens of a chunk; None for any number.

    A truncated text ends where transformers truncates it. A window has as many tokens as the model
    has positions for, or, without a table of positions, as it was trained for. Where the folder of
    sentence-transformers is followed, both have its limit.
    """
    config = pipeline.model.config.get_text_config()
    max_length = model_limits.find_max_length(pipeline)
    if windows.truncates(truncation) or (recipe.as_sentence_transformers and max_length):
        return max_length
    trained = getattr(config, "max_position_embeddings", None)
    return model_limits.count_positions(pipeline.model) or max_length or trained


def count_prompt_tokens(window_tokenizer: windows.WindowTokenizer, recipe: EmbeddingRecipe) -> int:
    """Count the prompt's tokens at the beginning of a text, as sentence-transformers does."""
    tokenizer = window_tokenizer.tokenizer
    limits = (
        {"truncation": True, "max_length": window_tokenizer.limit} if window_tokenizer.limit else {}
    )
    ids = tokenizer(recipe.prompt, **window_tokenizer.keywords, **limits)["input_ids"]
    return len(ids) - (ids[-1:] != [] and ids[-1] in tokenizer.all_special_ids)
