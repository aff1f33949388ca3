"""Decide how a sentence-transformers folder makes its vectors, from its JSON files.

This needs neither torch nor transformers: the driver builds the same recipe as the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .embedding_recipe import Dense, EmbeddingRecipe, LayerNorm, Normalize, Step, Truncate
from .sentence_transformers_files import (
    MODULES,
    SETTINGS,
    UNFOLLOWED,
    check_count,
    check_mapping,
    find_first_module,
    iterate_modules,
    join_path,
)
from .static_folder import StaticFolder, find_static_folder
from .transformer_settings import UNBOUNDED, read_transformer_settings

# Poolings by their names in sentence-transformers, with pipemill's names; several are concatenated
# in this order.
POOLINGS = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Functions of `torch.nn` that need no argument and keep the vector's width.
_ACTIVATIONS = frozenset(
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish "
    "ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink".split()
)
# Encoder-decoders. sentence-transformers uses their encoder, and pipemill would use all of it.
_ENCODER_DECODERS = frozenset(
    "blenderbot blenderbot-small m2m_100 marian moonshine pegasus pegasus_x prophetnet t5gemma "
    "t5gemma2 t5gemma2_text udop whisper".split()
)
# Parameters that static embeddings have no use for, with the values that change nothing.
_STATIC_DEFAULTS = {
    "stride": 0,
    "add_special_tokens": True,
    "return_token_type_ids": False,
    "split_special_tokens": False,
}


def build_recipe(parameters: Mapping[str, Any], files: Mapping[str, Any]) -> EmbeddingRecipe:
    """Build the recipe of feature-extraction for these parameters and this folder.

    Args:
        parameters: all parameters of feature-extraction.
        files: as `read_recipe_files` returns them.

    Raises:
        ValueError: for a folder that pipemill can't follow; it names the module.
    """
    static = find_static_folder(files)
    follows = parameters["pooling"] == "auto" and (
        static is not None or _is_sentence_transformer(files)
    )
    if static is not None:
        recipe = _build_static_recipe(static, parameters, files)
    elif follows:
        recipe = _build_folder_recipe(files)
    else:
        recipe = _make_default_recipe(parameters["pooling"])
    steps = list(recipe.steps)
    if parameters["normalize"] is False:
        while steps and isinstance(steps[-1], Normalize):
            steps.pop()
    if (width := _find_truncation(parameters, files, follows)) is not None:
        steps.append(Truncate(width))
    if parameters["normalize"] and steps[-1:] != [Normalize()]:
        steps.append(Normalize())
    return EmbeddingRecipe(
        poolings=recipe.poolings,
        steps=tuple(steps),
        prompt=_choose_prompt(parameters, files, follows),
        pools_prompt=recipe.pools_prompt,
        as_sentence_transformers=recipe.as_sentence_transformers,
        max_seq_length=recipe.max_seq_length,
        lowercases=recipe.lowercases,
        tokenizing=recipe.tokenizing,
        static=recipe.static,
    )


def find_shorter_limit(recipe: EmbeddingRecipe, files: Mapping[str, Any]) -> int | None:
    """Return the folder's limit on the tokens of a chunk, if the model takes more; else None."""
    if not recipe.as_sentence_transformers:
        return None
    _, folder = find_first_module(files[MODULES])
    config = files.get(join_path(folder, "config.json"), {})
    tokenizer_config = files.get(join_path(folder, "tokenizer_config.json"), {})
    tokenizer_limit = _read_length(tokenizer_config, "model_max_length")
    model_limit = _read_length(config, "max_position_embeddings") or tokenizer_limit
    limit = recipe.max_seq_length or tokenizer_limit
    # RoBERTa and its relatives reserve two rows of their table.
    reserved = 2 if config.get("pad_token_id") == 1 else 0
    shorter = limit is not None and (model_limit is None or limit < model_limit - reserved)
    return limit if shorter else None


def _read_length(config: Mapping[str, Any], key: str) -> int | None:
    length = config.get(key)
    return length if isinstance(length, int) and 0 < length < UNBOUNDED else None


def _make_default_recipe(pooling: str) -> EmbeddingRecipe:
    return EmbeddingRecipe(poolings=("mean" if pooling == "auto" else pooling,))


def _build_static_recipe(
    static: StaticFolder, parameters: Mapping[str, Any], files: Mapping[str, Any]
) -> EmbeddingRecipe:
    """Build the recipe of static embeddings. Raise ValueError for what they do not have."""
    if parameters["pooling"] not in ("auto", "mean"):
        raise ValueError(
            f"pooling {parameters['pooling']} is not for static embeddings: each text is the mean "
            "of its tokens' vectors. Leave it out"
        )
    given = {**parameters, **(parameters.get("tokenize_kwargs") or {})}
    for name, usual in _STATIC_DEFAULTS.items():
        if given.get(name) not in (None, usual):
            raise ValueError(f"{name} is not for static embeddings: leave it out")
    if given.get("max_length") is not None:
        static = replace(static, max_length=given["max_length"])
    steps: tuple[Step, ...] = ()
    if parameters["pooling"] == "auto" and static.is_model2vec:
        steps = (Normalize(),) * static.normalizes
    elif parameters["pooling"] == "auto":
        steps = tuple(_read_steps(list(iterate_modules(files[MODULES]))[1:], files, None))
    return EmbeddingRecipe(steps=steps, static=static)


def _is_sentence_transformer(files: Mapping[str, Any]) -> bool:
    """Return whether the folder is a SentenceTransformer, whose modules are followed.

    A CrossEncoder's modules are not: sentence-transformers takes the mean, too.

    Raises:
        ValueError: for another type of model.
    """
    if MODULES not in files:
        return False
    model_type = _get_settings(files).get("model_type", "SentenceTransformer")
    if model_type not in ("SentenceTransformer", "CrossEncoder"):
        raise ValueError(f"{SETTINGS} says that the model is a {model_type}, {UNFOLLOWED}")
    return model_type == "SentenceTransformer"


def _explain_module(module: str, folder: str) -> ValueError:
    where = f" ({folder})" if folder else ""
    return ValueError(f"{MODULES} names the module {module}{where}, {UNFOLLOWED}")


def _build_folder_recipe(files: Mapping[str, Any]) -> EmbeddingRecipe:
    modules = [
        (name, folder) for name, folder in iterate_modules(files[MODULES]) if name != "Dropout"
    ]
    first, folder = find_first_module(files[MODULES])
    if first != "Transformer":
        raise _explain_module(first, folder)
    model_type = files.get(join_path(folder, "config.json"), {}).get("model_type")
    if str(model_type) in _ENCODER_DECODERS:
        raise ValueError(f"its vectors are those of the encoder of a {model_type}, {UNFOLLOWED}")
    if len(modules) < 2:
        raise ValueError(f"{MODULES} names no Pooling after the Transformer, {UNFOLLOWED}")
    if modules[1][0] != "Pooling":
        raise _explain_module(*modules[1])
    path = join_path(modules[1][1], "config.json")
    if path not in files:
        raise ValueError(f"there is no {path}, which says how the vectors are pooled")
    config = files[path]
    poolings = _read_poolings(config)
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    width = None if width is None else check_count(width, path) * len(poolings)
    return EmbeddingRecipe(
        poolings=poolings,
        steps=tuple(_read_steps(modules[2:], files, width)),
        pools_prompt=config.get("include_prompt", True),
        as_sentence_transformers=True,
        **read_transformer_settings(files, folder),
    )


def _read_poolings(config: Mapping[str, Any]) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLINGS.items() if config.get(key)] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in POOLINGS:
            raise ValueError(f"the module Pooling has the mode {mode!r}, {UNFOLLOWED}")
    return tuple(POOLINGS[mode] for mode in modes)


def _read_steps(
    modules: list[tuple[str, str]], files: Mapping[str, Any], width: int | None
) -> Iterator[Step]:
    """Yield the steps of the modules after the pooling. width: the pooled vectors', if known."""
    for module, folder in modules:
        config = _get_module_config(files, folder)
        if module in ("Dense", "Normalize"):
            _check_names(module, folder, config)
        if module == "Normalize":
            yield Normalize()
        elif module == "LayerNorm":
            yield LayerNorm(folder)
        elif module == "Dense":
            if width is not None and config.get("in_features", width) != width:
                raise ValueError(
                    f"the module Dense ({folder}) takes {config['in_features']} numbers, and the "
                    f"vectors before it have {width}"
                )
            width = check_count(config.get("out_features"), join_path(folder, "config.json"))
            residual = bool(config.get("use_residual"))
            yield Dense(folder, width, _read_activation(folder, config), residual)
        else:
            raise _explain_module(module, folder)


def _check_names(module: str, folder: str, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        name = config.get(key) or "sentence_embedding"
        if name != "sentence_embedding":
            raise ValueError(f"the module {module} ({folder}) has the {key} {name!r}, {UNFOLLOWED}")


def _read_activation(folder: str, config: Mapping[str, Any]) -> str:
    function = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = find_torch_activation(function)
    if name is None:
        raise ValueError(f"the module Dense ({folder}) has the activation {function}, {UNFOLLOWED}")
    return name


def find_torch_activation(path: Any) -> str | None:
    """Return the name in `torch.nn` of the function at a path; None if it can't be applied."""
    name = str(path).rpartition(".")[2]
    return name if str(path).startswith("torch.nn.") and name in _ACTIVATIONS else None


def _find_truncation(
    parameters: Mapping[str, Any], files: Mapping[str, Any], follows: bool
) -> int | None:
    """Return how many numbers of a vector the job keeps, or else the folder; None for all."""
    if parameters["truncate_dim"] is not None or not follows or MODULES not in files:
        return parameters["truncate_dim"]
    width = _get_settings(files).get("truncate_dim")
    return None if width is None else check_count(width, SETTINGS)


def _choose_prompt(parameters: Mapping[str, Any], files: Mapping[str, Any], follows: bool) -> str:
    """Return the job's prompt, or the one that it names, or the folder's default."""
    if parameters["prompt"] is not None:
        return parameters["prompt"]
    settings, name = _get_settings(files), parameters["prompt_name"]
    prompts = check_mapping(settings.get("prompts"), SETTINGS, "prompts")
    if any(not isinstance(prompt, str | None) for prompt in prompts.values()):
        raise ValueError(f"{SETTINGS} has prompts that are not texts")
    if name is None:
        name = settings.get("default_prompt_name") if follows else None
        if name is None:
            return ""
        if str(name) not in {*prompts, "query", "document"}:
            raise ValueError(
                f"{SETTINGS} has the default_prompt_name {name!r}, but no prompt of that name"
            )
        return prompts.get(str(name)) or ""
    if name not in prompts:
        names = f"it has {', '.join(prompts)}" if prompts else "it has no prompts"
        raise ValueError(f"prompt_name {name!r} is not among the model's prompts: {names}")
    return prompts[name] or ""


def _get_settings(files: Mapping[str, Any]) -> Mapping[str, Any]:
    return files.get(SETTINGS, {})


def _get_module_config(files: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    return files.get(join_path(folder, "config.json"), {}) if folder else {}
