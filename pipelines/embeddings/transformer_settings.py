"""Read how a sentence-transformers folder tokenizes texts: the settings of its Transformer.

This needs neither torch nor transformers, as the rest of the folder's recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .sentence_transformers_files import (
    TRANSFORMER_SETTINGS,
    UNFOLLOWED,
    check_count,
    check_mapping,
    join_path,
)

# Keys of the transformer's settings that do not change the vectors of `encode`.
_WITHOUT_EFFECT = {
    "backend",
    "document_length",
    "query_expansion",
    "query_length",
    "unpad_inputs",
}
_ALLOWED_ARGUMENTS = {
    "model": {
        "add_pooling_layer",
        "attn_implementation",
        "code_revision",
        "device_map",
        "dtype",
        "low_cpu_mem_usage",
        "torch_dtype",
        "trust_remote_code",
        "unpad_inputs",
        "use_cache",
        "use_memory_efficient_attention",
        "use_safetensors",
    },
    "tokenizer": {"model_max_length", "padding_side", "trust_remote_code", "use_fast"},
    "config": {"trust_remote_code", "use_cache"},
}
_OTHER_NAMES = {"model": "model", "tokenizer": "processor", "config": "config"}
_TOKENIZING = ("add_special_tokens", "return_token_type_ids", "split_special_tokens")
_PADDING = (
    "max_length",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "return_attention_mask",
    "return_tensors",
    "truncation",
)
UNBOUNDED = 10**9  # tokenizers that know no limit have a larger one


def read_transformer_settings(files: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Read the settings of the first module, as fields of a recipe."""
    paths = (join_path(folder, name) for name in TRANSFORMER_SETTINGS)
    path = next((path for path in paths if path in files), "")
    settings = dict(files.get(path, {}))
    longest = settings.pop("max_seq_length", None)
    lowercases = bool(settings.pop("do_lower_case", False))
    _check_modality(path, settings)
    for part, allowed in _ALLOWED_ARGUMENTS.items():
        for key in (f"{part}_args", f"{_OTHER_NAMES[part]}_kwargs"):
            arguments = check_mapping(settings.pop(key, None), path, key)
            if part == "tokenizer":
                longest = arguments.get("model_max_length", longest)
            for name in arguments.keys() - allowed:
                raise ValueError(f"{path} sets {key}: {name}, {UNFOLLOWED}")
    tokenizing: dict[str, Any] = {}
    processing = check_mapping(settings.pop("processing_kwargs", None), path, "processing_kwargs")
    text, common = (check_mapping(processing.get(name), path, name) for name in ("text", "common"))
    for name, value in {**text, **common}.items():
        if name == "max_length":
            longest = value
        elif name in _TOKENIZING:
            tokenizing[name] = value
        elif name not in _PADDING:
            raise ValueError(f"{path} sets processing_kwargs: {name}, {UNFOLLOWED}")
    for name, value in settings.items():
        if value is not None and name not in _WITHOUT_EFFECT:
            raise ValueError(f"{path} sets {name}, {UNFOLLOWED}")
    if longest is not None:
        longest = check_count(longest, f"max_seq_length of {path}")
    return {
        "max_seq_length": longest if longest is None or longest < UNBOUNDED else None,
        "lowercases": lowercases,
        "tokenizing": tuple(tokenizing.items()),
    }


def _check_modality(path: str, settings: dict[str, Any]) -> None:
    """Raise ValueError if texts do not go through the model's usual forward pass."""
    task = settings.pop("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ValueError(f"{path} has the transformer_task {task}, {UNFOLLOWED}")
    output = settings.pop("module_output_name", "token_embeddings")
    if (modalities := settings.pop("modality_config", None)) is None:
        return
    modalities = check_mapping(modalities, path, "modality_config")
    if "message" in modalities:
        raise ValueError(f"{path} has texts written as chat messages, {UNFOLLOWED}")
    text = check_mapping(modalities.get("text"), path, "text")
    name = text.get("method_output_name")
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    if output != "token_embeddings" or (text.get("method"), name) != (
        "forward",
        "last_hidden_state",
    ):
        raise ValueError(f"{path} takes {name} of {text.get('method')} as {output}, {UNFOLLOWED}")
