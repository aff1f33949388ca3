"""What `generate` of transformers takes, by name: known here without importing it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pipemill.actors.task import Loaded, Parameter

from . import shared_parameters

_ID = Parameter(None, "int", least=0)
_IDS = Parameter(None, "list", each=_ID, filled=True)
_CACHES = (None, "dynamic", "offloaded", "quantized", "static", "offloaded_static")
_OLD_CACHES = ("sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid")


def _count(least: int) -> Parameter:
    return Parameter(None, "int|null", least=least)


def _real(
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Parameter:
    return Parameter(None, "real|null", least=least, most=most, above=above, below=below)


_FLAG, _TOKEN = Parameter(None, "bool|null"), Parameter(None, "int|null", least=0)
_TOKENS = Parameter(None, "int|list|null", least=0, each=_ID, filled=True)

# Of `transformers.GenerationConfig`, what a job may want to set. Null leaves it to the model.
_NAMED: Mapping[str, Parameter] = {
    "max_new_tokens": _count(1),
    "min_new_tokens": _count(0),
    "max_length": _count(1),
    "min_length": _count(0),
    "max_time": Parameter(None, "float|null", least=0),
    "early_stopping": Parameter(None, "any", (None, True, False, "never")),
    "stop_strings": shared_parameters.texts(None, "str|list|null"),
    "do_sample": _FLAG,
    "num_beams": _count(1),
    "use_cache": _FLAG,
    "temperature": _real(least=0),  # 0 where nothing is sampled
    "top_k": _count(0),
    "top_p": _real(least=0, most=1),
    "min_p": _real(least=0, most=1),
    "top_h": _real(above=0, most=1),
    "typical_p": _real(above=0, most=1),
    "epsilon_cutoff": _real(least=0, below=1),
    "eta_cutoff": _real(least=0, below=1),
    "repetition_penalty": _real(above=0),
    "encoder_repetition_penalty": _real(above=0),
    "length_penalty": _real(),
    "no_repeat_ngram_size": _count(0),
    "encoder_no_repeat_ngram_size": _count(0),
    "bad_words_ids": Parameter(None, "list|null", each=_IDS, filled=True),
    "renormalize_logits": _FLAG,
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKENS,
    "remove_invalid_values": _FLAG,
    "exponential_decay_length_penalty": Parameter(
        None, "list|null", count=2, each=Parameter(None, "float")
    ),
    "suppress_tokens": Parameter(None, "list|null", each=Parameter(None, "int")),
    "begin_suppress_tokens": Parameter(None, "list|null", each=Parameter(None, "int")),
    "sequence_bias": Parameter(None, "list|dict|null", filled=True),
    "token_healing": _FLAG,
    "guidance_scale": _real(),
    "num_return_sequences": _count(1),
    "num_beam_groups": _count(1),
    "diversity_penalty": _real(),
    "penalty_alpha": _real(),
    "pad_token_id": Parameter(None, "int|null"),
    "bos_token_id": _TOKENS,
    "eos_token_id": Parameter(None, "int|list|null", each=Parameter(None, "int"), filled=True),
    "decoder_start_token_id": _TOKENS,
    "prompt_lookup_num_tokens": _count(1),
    "cache_implementation": Parameter(None, "str|null", (*_CACHES, *_OLD_CACHES)),
}
# A model may take more: what it does not know it says when it is loaded.
_DICT = Parameter(None, "dict|null", keys=_NAMED, more=True)

GENERATION: Mapping[str, Parameter] = {"generate_kwargs": _DICT, **_NAMED}
ONLY_BY_DICT: Mapping[str, Parameter] = {"max_new_tokens": _count(1), "generate_kwargs": _DICT}


def check_generation(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for parameters of `generate` that contradict each other."""
    of = flatten_generate_kwargs(
        {n: v for n, v in parameters.items() if n in GENERATION and v is not None}
    )
    for unit in ("new_tokens", "length"):
        least, most = of.get(f"min_{unit}"), of.get(f"max_{unit}")
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_{unit} ({least}) must be at most max_{unit} ({most})")
    samples, beams = of.get("do_sample"), of.get("num_beams")
    if samples and of.get("temperature") == 0:
        raise ValueError("temperature must be above 0 with do_sample: true; it is 0")
    several = of.get("num_return_sequences") or 1
    if beams is not None and several > max(beams, 1) and (beams > 1 or samples is False):
        raise ValueError(
            f"num_return_sequences ({several}) must be at most num_beams ({beams})"
            + ("" if beams > 1 else ", or do_sample must be true")
        )


def check_generate_kwargs(parameters: Mapping[str, Any]) -> None:
    """The same for tasks that take these parameters in a mapping only."""
    inside = parameters.get("generate_kwargs") or {}
    if parameters.get("max_new_tokens") is not None and "max_new_tokens" in inside:
        raise ValueError("max_new_tokens is given twice: beside generate_kwargs, and in it")
    check_generation(parameters)


# Ids that index the model's vocabulary: a larger one fails for every row.
_INDEXING = ("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")


def check_against_model(parameters: Mapping[str, Any], pipeline: Any) -> None:
    """Raises ValueError for what this model's `generate` does not know, where it says so."""
    from transformers import GenerationConfig
    from transformers.generation import GenerationMixin

    model, given = pipeline.model, flatten_generate_kwargs(parameters)
    size = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    for name in _INDEXING:
        ids = given.get(name)
        for one in ids if isinstance(ids, list) else [ids]:
            if one is not None and size is not None and one >= size:
                raise ValueError(f"{name} ({one}) must be less than the model's {size} tokens")
    asked = {n: v for n, v in (parameters.get("generate_kwargs") or {}).items() if v is not None}
    own = type(model).__dict__.get("generate") or getattr(type(model), "generate", None)
    whisper = "Whisper" in type(model).__name__  # hands on what it does not know
    if not asked or not model.can_generate():
        return
    if own is not GenerationMixin.generate and not whisper:
        return
    names = {*vars(GenerationConfig()), *inspect.signature(model.generate).parameters}
    rest = {name: value for name, value in asked.items() if name not in names}
    try:
        model._validate_model_kwargs(dict(rest))
    except ValueError:
        raise ValueError(
            f"generate_kwargs: {type(model).__name__} does not know {', '.join(rest)}"
        ) from None


def returns_several(loaded: Loaded) -> bool:
    """Whether more than one sequence is generated for each row."""
    by_dict = loaded.parameters.get("generate_kwargs") or {}
    count = loaded.parameters.get("num_return_sequences", by_dict.get("num_return_sequences"))
    return (count or 1) > 1


def flatten_generate_kwargs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """For pipelines that take parameters of `generate` beside their own, and no dict of them."""
    given = dict(parameters)
    return {**(given.pop("generate_kwargs", None) or {}), **given}
