"""How a folder of sentence-transformers makes its vectors, read from its JSON files.

Needs neither torch nor transformers: the driver reads it, and the workers follow the same recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# What the first module's settings were called over the years, the newest first.
_TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PACKAGE = "sentence_transformers"

# Their names of a pooling, in the order in which several are concatenated, and pipemill's.
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
ACTIVATIONS = frozenset(
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish "
    "ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink".split()
)
# Encoder-decoders of which sentence-transformers takes the encoder, and pipemill the whole model.
_ENCODER_DECODERS = frozenset(
    "blenderbot blenderbot-small m2m_100 marian moonshine pegasus pegasus_x prophetnet t5gemma "
    "t5gemma2 t5gemma2_text udop whisper".split()
)
# Keys of the transformer's settings that change no vector of `encode`.
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
_UNBOUNDED = 10**9  # what tokenizers say that know no limit is larger


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation, whose weights lie in `folder`."""

    folder: str
    width: int
    activation: str
    residual: bool = False

    def __str__(self) -> str:
        function = "" if self.activation == "Identity" else f", {self.activation}"
        return f"Dense to {self.width}{function}"


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm, whose weights lie in `folder`."""

    folder: str

    def __str__(self) -> str:
        return "LayerNorm"


@dataclass(frozen=True)
class Normalize:
    """Scales a vector to length 1."""

    def __str__(self) -> str:
        return "normalized"


@dataclass(frozen=True)
class Truncate:
    """Keeps the first numbers of a vector."""

    width: int

    def __str__(self) -> str:
        return f"the first {self.width} numbers"


Step = Dense | LayerNorm | Normalize | Truncate


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecipe:
    """How the token vectors of a text become its one vector.

    poolings: concatenated in this order.
    steps: what follows the pooling.
    prompt: text before every text.
    pools_prompt: whether the prompt's tokens are pooled, too.
    as_sentence_transformers: whether the length of a text is limited as sentence-transformers does.
    max_seq_length: the most tokens of a chunk; None for what the tokenizer and the model say.
    lowercases: whether the tokenizer gets lower-case texts.
    tokenizing: keywords for the tokenizer.
    """

    poolings: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = ()
    prompt: str = ""
    pools_prompt: bool = True
    as_sentence_transformers: bool = False
    max_seq_length: int | None = None
    lowercases: bool = False
    tokenizing: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "; ".join(self._told())

    def _told(self) -> Iterator[str]:
        yield ", ".join([" + ".join(self.poolings), *map(str, self.steps)])
        if self.prompt:
            yield f"prompt {self.prompt!r}" + ("" if self.pools_prompt else ", not pooled")
        if self.lowercases:
            yield "lower case"
        if self.tokenizing:
            yield ", ".join(f"{name} {value}" for name, value in self.tokenizing)

    @property
    def excludes_prompt(self) -> bool:
        return bool(self.prompt) and not self.pools_prompt

    def width(self, hidden: int) -> int:
        """The vector's width. hidden: the token vectors'."""
        width = hidden * len(self.poolings)
        for step in self.steps:
            if isinstance(step, Dense):
                width = step.width
            elif isinstance(step, Truncate):
                width = min(width, step.width)
        return width


def read_recipe_files(read: Callable[[str], Any]) -> dict[str, Any]:
    """Read the JSON files of a model's folder that say how its vectors are made.

    read: gives the content of a file, and None for one that the model does not have.
    """
    found: dict[str, Any] = {}

    def want(name: str) -> Any:
        content = read(name)
        if content is None:
            return None
        if name != MODULES and not isinstance(content, dict):
            raise ValueError(f"{name} is not a mapping")
        found[name] = content
        return content

    want(SETTINGS)
    modules = want(MODULES)
    for kind, folder in _iterate_modules(modules) if modules is not None else ():
        if kind == "Transformer":
            want(_join_path(folder, "config.json"))
            want(_join_path(folder, "tokenizer_config.json"))
            any(want(_join_path(folder, name)) for name in _TRANSFORMER_SETTINGS)
        else:
            want(_join_path(folder, "config.json"))
    return found


def build_recipe(parameters: Mapping[str, Any], files: Mapping[str, Any]) -> EmbeddingRecipe:
    """What feature-extraction computes with these parameters and this folder.

    parameters: all of feature-extraction's. files: as `read_recipe_files` returns them.
    Raises ValueError, naming the module, for a folder that can't be followed.
    """
    follows = parameters["pooling"] == "auto" and _is_sentence_transformer(files)
    recipe = _build_folder_recipe(files) if follows else _make_default_recipe(parameters["pooling"])
    steps = list(recipe.steps)
    if parameters["normalize"] is False:
        while steps and isinstance(steps[-1], Normalize):
            steps.pop()
    elif parameters["normalize"] and steps[-1:] != [Normalize()]:
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
    )


def list_module_types(modules: Any) -> list[str]:
    """The kinds of all modules, in their order."""
    return [kind for kind, _ in _iterate_modules(modules)]


def find_first_module(modules: Any) -> tuple[str, str]:
    """The kind of the first module of modules.json, and its folder: "" for the model's own.

    Raises ValueError where the file is not what sentence-transformers writes.
    """
    first = next(_iterate_modules(modules), None)
    if first is None:
        raise ValueError(f"{MODULES} names no modules")
    return first


def find_shorter_limit(recipe: EmbeddingRecipe, files: Mapping[str, Any]) -> int | None:
    """The most tokens of a chunk, where the folder has it below what the model takes."""
    if not recipe.as_sentence_transformers:
        return None
    _, folder = find_first_module(files[MODULES])
    config = files.get(_join_path(folder, "config.json"), {})
    told = _read_length(
        files.get(_join_path(folder, "tokenizer_config.json"), {}), "model_max_length"
    )
    usual = _read_length(config, "max_position_embeddings") or told
    limit = recipe.max_seq_length or told
    # RoBERTa and its kin keep two rows of their table for themselves.
    reserved = 2 if config.get("pad_token_id") == 1 else 0
    shorter = limit is not None and (usual is None or limit < usual - reserved)
    return limit if shorter else None


def _read_length(config: Mapping[str, Any], key: str) -> int | None:
    length = config.get(key)
    return length if isinstance(length, int) and 0 < length < _UNBOUNDED else None


def _make_default_recipe(pooling: str) -> EmbeddingRecipe:
    return EmbeddingRecipe(poolings=("mean" if pooling == "auto" else pooling,))


def _is_sentence_transformer(files: Mapping[str, Any]) -> bool:
    """Whether the folder is a SentenceTransformer. Raises ValueError for another kind of model.

    A CrossEncoder has no vectors of its own: sentence-transformers takes the mean, too.
    """
    if MODULES not in files:
        return False
    kind = _get_settings(files).get("model_type", "SentenceTransformer")
    if kind not in ("SentenceTransformer", "CrossEncoder"):
        raise ValueError(f"{SETTINGS} says that the model is a {kind}, {_UNKNOWN}")
    return kind == "SentenceTransformer"


_UNKNOWN = (
    "which pipemill can't follow. Set parameters.pooling to mean, cls, last or max for the vectors "
    "of the transformer alone: they are not those of SentenceTransformer.encode"
)


def _unsupported_module(kind: str, folder: str) -> ValueError:
    where = f" ({folder})" if folder else ""
    return ValueError(f"{MODULES} names the module {kind}{where}, {_UNKNOWN}")


def _iterate_modules(modules: Any) -> Iterator[tuple[str, str]]:
    """The kind and the folder of each module; the kind of foreign code is its whole name."""
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{MODULES} is not a list of modules")
    for module in modules:
        name, folder = module.get("type"), module.get("path", "")
        if not isinstance(name, str) or not isinstance(folder, str):
            raise ValueError(f"{MODULES} has a module without a type or path: {module}")
        own = name.split(".")[0] == _PACKAGE
        folder = folder.strip("/")
        if ".." in folder.split("/") or ":" in folder:
            raise ValueError(f"{MODULES} names a module outside of the model's folder: {folder}")
        yield name.rpartition(".")[2] if own else name, folder


def _build_folder_recipe(files: Mapping[str, Any]) -> EmbeddingRecipe:
    modules = [
        (kind, folder) for kind, folder in _iterate_modules(files[MODULES]) if kind != "Dropout"
    ]
    kind, folder = find_first_module(files[MODULES])
    if kind != "Transformer":
        raise _unsupported_module(kind, folder)
    model_type = files.get(_join_path(folder, "config.json"), {}).get("model_type")
    if str(model_type) in _ENCODER_DECODERS:
        raise ValueError(f"its vectors are those of the encoder of a {model_type}, {_UNKNOWN}")
    if len(modules) < 2:
        raise ValueError(f"{MODULES} names no Pooling after the Transformer, {_UNKNOWN}")
    if modules[1][0] != "Pooling":
        raise _unsupported_module(*modules[1])
    place = _join_path(modules[1][1], "config.json")
    if place not in files:
        raise ValueError(f"there is no {place}, which says how the vectors are pooled")
    config = files[place]
    poolings = _read_poolings(config)
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    width = None if width is None else _check_count(width, place) * len(poolings)
    steps = list(_read_steps(modules[2:], files, width))
    if (beginning := _get_settings(files).get("truncate_dim")) is not None:
        steps.append(Truncate(_check_count(beginning, SETTINGS)))
    return EmbeddingRecipe(
        poolings=poolings,
        steps=tuple(steps),
        pools_prompt=config.get("include_prompt", True),
        as_sentence_transformers=True,
        **_read_transformer_settings(files, folder),
    )


def _read_poolings(config: Mapping[str, Any]) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLINGS.items() if config.get(key)] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in POOLINGS:
            raise ValueError(f"the module Pooling has the mode {mode!r}, {_UNKNOWN}")
    return tuple(POOLINGS[mode] for mode in modes)


def _read_steps(
    modules: list[tuple[str, str]], files: Mapping[str, Any], width: int | None
) -> Iterator[Step]:
    for kind, folder in modules:
        config = _get_module_config(files, folder)
        if kind in ("Dense", "Normalize"):
            _check_names(kind, folder, config)
        if kind == "Normalize":
            yield Normalize()
        elif kind == "LayerNorm":
            yield LayerNorm(folder)
        elif kind == "Dense":
            if width is not None and config.get("in_features", width) != width:
                raise ValueError(
                    f"the module Dense ({folder}) takes {config['in_features']} numbers, and the "
                    f"vectors before it have {width}"
                )
            width = _check_count(config.get("out_features"), _join_path(folder, "config.json"))
            residual = bool(config.get("use_residual"))
            yield Dense(folder, width, _read_activation(folder, config), residual)
        else:
            raise _unsupported_module(kind, folder)


def _check_names(kind: str, folder: str, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        name = config.get(key) or "sentence_embedding"
        if name != "sentence_embedding":
            raise ValueError(f"the module {kind} ({folder}) has the {key} {name!r}, {_UNKNOWN}")


def _read_activation(folder: str, config: Mapping[str, Any]) -> str:
    path = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = str(path).rpartition(".")[2]
    if not str(path).startswith("torch.nn.") or name not in ACTIVATIONS:
        raise ValueError(f"the module Dense ({folder}) has the activation {path}, {_UNKNOWN}")
    return name


def _read_transformer_settings(files: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """What the settings of the first module say, as fields of a recipe."""
    places = (_join_path(folder, name) for name in _TRANSFORMER_SETTINGS)
    place = next((place for place in places if place in files), "")
    settings = dict(files.get(place, {}))
    longest = settings.pop("max_seq_length", None)
    lowercases = bool(settings.pop("do_lower_case", False))
    _check_modality(place, settings)
    for kind, allowed in _ALLOWED_ARGUMENTS.items():
        for key in (f"{kind}_args", f"{_OTHER_NAMES[kind]}_kwargs"):
            given = _check_mapping(settings.pop(key, None), place, key)
            if kind == "tokenizer":
                longest = given.get("model_max_length", longest)
            for name in given.keys() - allowed:
                raise ValueError(f"{place} sets {key}: {name}, {_UNKNOWN}")
    tokenizing: dict[str, Any] = {}
    processing = _check_mapping(settings.pop("processing_kwargs", None), place, "processing_kwargs")
    text, common = (
        _check_mapping(processing.get(name), place, name) for name in ("text", "common")
    )
    for name, value in {**text, **common}.items():
        if name == "max_length":
            longest = value
        elif name in _TOKENIZING:
            tokenizing[name] = value
        elif name not in _PADDING:
            raise ValueError(f"{place} sets processing_kwargs: {name}, {_UNKNOWN}")
    for name, value in settings.items():
        if value is not None and name not in _WITHOUT_EFFECT:
            raise ValueError(f"{place} sets {name}, {_UNKNOWN}")
    if longest is not None:
        longest = _check_count(longest, f"max_seq_length of {place}")
    return {
        "max_seq_length": longest if longest is None or longest < _UNBOUNDED else None,
        "lowercases": lowercases,
        "tokenizing": tuple(tokenizing.items()),
    }


def _check_modality(place: str, settings: dict[str, Any]) -> None:
    """Raises ValueError where texts do not go through the model's usual forward pass."""
    task = settings.pop("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ValueError(f"{place} has the transformer_task {task}, {_UNKNOWN}")
    output = settings.pop("module_output_name", "token_embeddings")
    if (modalities := settings.pop("modality_config", None)) is None:
        return
    modalities = _check_mapping(modalities, place, "modality_config")
    if "message" in modalities:
        raise ValueError(f"{place} has texts written as chat messages, {_UNKNOWN}")
    way = _check_mapping(modalities.get("text"), place, "text")
    name = way.get("method_output_name")
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    if output != "token_embeddings" or (way.get("method"), name) != (
        "forward",
        "last_hidden_state",
    ):
        raise ValueError(f"{place} takes {name} of {way.get('method')} as {output}, {_UNKNOWN}")


def _choose_prompt(parameters: Mapping[str, Any], files: Mapping[str, Any], follows: bool) -> str:
    """The job's prompt, or the one it names, or the folder's default."""
    if parameters["prompt"] is not None:
        return parameters["prompt"]
    settings, name = _get_settings(files), parameters["prompt_name"]
    prompts = _check_mapping(settings.get("prompts"), SETTINGS, "prompts")
    if any(not isinstance(prompt, str | None) for prompt in prompts.values()):
        raise ValueError(f"{SETTINGS} has prompts that are no texts")
    if name is None:
        name = settings.get("default_prompt_name") if follows else None
        if name is None:
            return ""
        if str(name) not in {*prompts, "query", "document"}:
            raise ValueError(f"{SETTINGS} has the default_prompt_name {name!r}, and no such prompt")
        return prompts.get(str(name)) or ""
    if name not in prompts:
        names = f"it has {', '.join(prompts)}" if prompts else "it has no prompts"
        raise ValueError(f"prompt_name {name!r} is not among the model's prompts: {names}")
    return prompts[name] or ""


def _get_settings(files: Mapping[str, Any]) -> Mapping[str, Any]:
    return files.get(SETTINGS, {})


def _check_mapping(value: Any, place: str, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} in {place} is not a mapping")
    return value or {}


def _check_count(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} in {place} is not a number of 1 or more")
    return value


def _get_module_config(files: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    return files.get(_join_path(folder, "config.json"), {}) if folder else {}


def _join_path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
