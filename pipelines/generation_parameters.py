"""What `generate` of transformers takes, by name: known here without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipemill.actors.task import Loaded, Parameter

# Of `transformers.GenerationConfig`, what a job may want to set. Null leaves it to the model.
_NAMES = """
    max_new_tokens min_new_tokens max_length min_length max_time early_stopping stop_strings
    do_sample num_beams use_cache temperature top_k top_p min_p top_h typical_p epsilon_cutoff
    eta_cutoff repetition_penalty encoder_repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids renormalize_logits forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens sequence_bias token_healing guidance_scale num_return_sequences
    num_beam_groups diversity_penalty penalty_alpha pad_token_id bos_token_id eos_token_id
    decoder_start_token_id prompt_lookup_num_tokens cache_implementation
""".split()

GENERATION: Mapping[str, Parameter] = {
    "generate_kwargs": Parameter(None, "dict|null"),
    **{name: Parameter(None, "any") for name in _NAMES},
}
ONLY_BY_DICT: Mapping[str, Parameter] = {
    "max_new_tokens": Parameter(None, "int|null"),
    "generate_kwargs": Parameter(None, "dict|null"),
}


def several(loaded: Loaded) -> bool:
    """Whether more than one sequence is generated for each row."""
    by_dict = loaded.parameters.get("generate_kwargs") or {}
    count = loaded.parameters.get("num_return_sequences", by_dict.get("num_return_sequences"))
    return (count or 1) > 1


def one_level(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """For pipelines that take parameters of `generate` beside their own, and no dict of them."""
    given = dict(parameters)
    return {**(given.pop("generate_kwargs", None) or {}), **given}
