"""Parameters of transformers' `generate`, by name, without importing it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipemill.actors.task import Column, Loaded, Parameter

from . import shared_parameters

_ID = Parameter(None, "int", least=0)
_IDS = Parameter(None, "list", each=_ID, filled=True)
_CACHES = (None, "dynamic", "offloaded", "quantized", "static", "offloaded_static")
_OLD_CACHES = ("sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid")


def _count(least: int) -> Parameter:
    return Parameter(None, "int|null", least=least)


_declare_real = partial(Parameter, None, "real|null")
_FLAG, _TOKEN = Parameter(None, "bool|null"), Parameter(None, "int|null", least=0)
_TOKENS = Parameter(None, "int|list|null", least=0, each=_ID, filled=True)

# The fields of `transformers.GenerationConfig` that a job may want to set. Null leaves a field to
# the model.
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
    "temperature": _declare_real(least=0),  # 0 if nothing is sampled
    "top_k": _count(0),
    "top_p": _declare_real(least=0, most=1),
    "min_p": _declare_real(least=0, most=1),
    "top_h": _declare_real(above=0, most=1),
    "typical_p": _declare_real(above=0, most=1),
    "epsilon_cutoff": _declare_real(least=0, below=1),
    "eta_cutoff": _declare_real(least=0, below=1),
    "repetition_penalty": _declare_real(above=0),
    "encoder_repetition_penalty": _declare_real(above=0),
    "length_penalty": _declare_real(),
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
    "guidance_scale": _declare_real(),
    "num_return_sequences": _count(1),
    "num_beam_groups": _count(1),
    "diversity_penalty": _declare_real(),
    "penalty_alpha": _declare_real(),
    "pad_token_id": Parameter(None, "int|null"),
    "bos_token_id": _TOKENS,
    "eos_token_id": Parameter(None, "int|list|null", each=Parameter(None, "int"), filled=True),
    "decoder_start_token_id": _TOKENS,
    "prompt_lookup_num_tokens": _count(1),
    "cache_implementation": Parameter(None, "str|null", (*_CACHES, *_OLD_CACHES)),
}
# The other fields, and arguments of `generate`: they are taken in `generate_kwargs` alone.
_OTHERS = (
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight",
    "assistant_lookbehind", "cache_config", "compile_config", "constraints",
    "continuous_batching_config", "custom_generate", "disable_compile", "dola_layers",
    "force_words_ids", "is_assistant", "low_memory", "max_cache_len", "max_matching_ngram_size",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "output_attentions",
    "output_hidden_states", "output_logits", "output_scores", "prefill_chunk_size",
    "return_dict_in_generate", "speculation_type", "synced_gpus", "target_lookbehind", "use_mtp",
    "watermarking_config",
)  # fmt: skip
FIELDS = frozenset((*_NAMED, *_OTHERS))
# A model may take more parameters. Those it does not know are found when it is loaded.
_DICT = Parameter(None, "dict|null", keys=_NAMED, more=True)

# What a row may say for itself.
ROW_SETTINGS = (
    Column(name="max_new_tokens", kind="number", required=False, parameter=True),
    Column(name="temperature", kind="number", required=False, parameter=True),
    Column(name="stop_strings", kind="texts", required=False, parameter=True),
)
GENERATION: Mapping[str, Parameter] = {"generate_kwargs": _DICT, **_NAMED}
# Whisper writes a window again at the next temperature where the text at the last one is poor.
_TEMPERATURE = Parameter(None, "real", least=0)
_TEMPERATURES = Parameter(None, "real|list|null", least=0, each=_TEMPERATURE, filled=True)
_OF_SPEECH = {
    **_NAMED,
    "temperature": _TEMPERATURES,
    "language": Parameter(None, "str|null"),
    "task": Parameter(None, "str|null"),
    "prompt_ids": Parameter(None, "list|null", each=_ID, filled=True),
    "prompt_condition_type": Parameter(None, "str|null", (None, "first-segment", "all-segments")),
    "condition_on_prev_tokens": _FLAG,
    "compression_ratio_threshold": _declare_real(),
    "logprob_threshold": _declare_real(),
    "no_speech_threshold": _declare_real(),
}
GENERATION_OF_SPEECH: Mapping[str, Parameter] = {
    "generate_kwargs": replace(_DICT, keys=_OF_SPEECH),
    **_OF_SPEECH,
}
ONLY_BY_DICT: Mapping[str, Parameter] = {"max_new_tokens": _count(1), "generate_kwargs": _DICT}


def check_generation(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for parameters of `generate` that contradict each other."""
    for name, value in (parameters.get("generate_kwargs") or {}).items():
        if parameters.get(name) is not None and parameters[name] != value:
            raise ValueError(
                f"{name} is given twice, in generate_kwargs and outside it: leave one out"
            )
    values = flatten_generate_kwargs(
        {n: v for n, v in parameters.items() if n in GENERATION and v is not None}
    )
    for unit in ("new_tokens", "length"):
        least, most = values.get(f"min_{unit}"), values.get(f"max_{unit}")
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_{unit} ({least}) must be at most max_{unit} ({most})")
    samples, beams = values.get("do_sample"), values.get("num_beams")
    if samples and values.get("temperature") == 0:
        raise ValueError("temperature must be above 0 with do_sample: true; it is 0")
    sequences = values.get("num_return_sequences") or 1
    if beams is not None and sequences > max(beams, 1) and (beams > 1 or samples is False):
        raise ValueError(
            f"num_return_sequences ({sequences}) must be at most num_beams ({beams})"
            + ("" if beams > 1 else ", or do_sample must be true")
        )


def check_generate_kwargs(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError as `check_generation` does, for tasks that take only `generate_kwargs`."""
    inner = parameters.get("generate_kwargs") or {}
    if parameters.get("max_new_tokens") is not None and "max_new_tokens" in inner:
        raise ValueError(
            "max_new_tokens is given twice, in generate_kwargs and outside it: leave one out"
        )
    check_generation(parameters)


# Ids that index the model's vocabulary: a larger one fails for every row.
_INDEXING = ("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")


def check_against_model(parameters: Mapping[str, Any], pipeline: Any) -> None:
    """Raise ValueError for parameters that this model's `generate` does not know.

    A `generate` that a model's class defines itself is not asked.
    """
    from transformers import GenerationConfig
    from transformers.generation import GenerationMixin

    model, values = pipeline.model, flatten_generate_kwargs(parameters)
    size = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    for name in _INDEXING:
        ids = values.get(name)
        for token_id in ids if isinstance(ids, list) else [ids]:
            if token_id is not None and size is not None and token_id >= size:
                raise ValueError(f"{name} ({token_id}) must be less than the model's {size} tokens")
    inner = {n: v for n, v in (parameters.get("generate_kwargs") or {}).items() if v is not None}
    generate = type(model).__dict__.get("generate") or getattr(type(model), "generate", None)
    # Whisper has its own, which passes on the parameters that it does not know.
    is_whisper = "Whisper" in type(model).__name__
    if not inner or not model.can_generate():
        return
    if generate is not GenerationMixin.generate and not is_whisper:
        return
    known = {*vars(GenerationConfig()), *inspect.signature(model.generate).parameters}
    others = {name: value for name, value in inner.items() if name not in known}
    try:
        model._validate_model_kwargs(dict(others))
    except ValueError:
        raise ValueError(
            f"generate_kwargs: {type(model).__name__} does not know {', '.join(others)}; leave "
            "that out"
        ) from None


def returns_several(loaded: Loaded) -> bool:
    """Return whether the job, or else the model's folder, wants several sequences for each row."""
    inner = loaded.parameters.get("generate_kwargs") or {}
    count = loaded.parameters.get("num_return_sequences", inner.get("num_return_sequences"))
    for owner in (loaded.pipeline, loaded.pipeline.model):
        settings = getattr(owner, "generation_config", None)
        count = count or getattr(settings, "num_return_sequences", None)
    return (count or 1) > 1


def flatten_generate_kwargs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Move what `generate_kwargs` holds to the other parameters, which win over it.

    Some pipelines take the parameters of `generate` among their own, and no `generate_kwargs`.
    """
    others = dict(parameters)
    return {**(others.pop("generate_kwargs", None) or {}), **others}
