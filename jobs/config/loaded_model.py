"""A model in memory as a job's model: a `transformers.Pipeline`, or a model and its tokenizer.

Neither transformers nor torch is imported here: where such an object is, they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipemill.pipelines.registry import ALIASES, find_task

from pipemill.errors import ConfigError

_AS_A_MAPPING = "give model={'model': model, 'tokenizer': tokenizer}, or a pipeline"
# The methods of a pipeline.
_STAGES = ("preprocess", "_forward", "forward", "postprocess")
# Libraries whose hooks and functions in a model come back with its files, or change no answer.
_LIBRARIES = {
    "transformers", "accelerate", "torch", "timm", "kernels", "bitsandbytes", "functools",
}  # fmt: skip
# What a pipeline is made of beside its model, as transformers names it. A processor comes last: it
# saves parts of the others, too.
_PARTS = ("tokenizer", "feature_extractor", "image_processor", "video_processor", "processor")


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A model that is not in a folder yet.

    Attributes:
        parts: the model, and what reads rows for it, each with `save_pretrained`.
        task: the task of the pipeline; None without one.
        pipeline_class: the pipeline's class, if it is not transformers' own.
        parameters: with which the pipeline was made.
    """

    parts: tuple[Any, ...]
    task: str | None = None
    pipeline_class: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"the loaded {type(self.parts[0]).__name__}"

    __repr__ = __str__


def read_model_section(value: Any) -> Any:
    """Return a job's `model` with a `LoadedModel` as its path, if it holds an object.

    Raises:
        ConfigError: for an object that can't be saved and loaded again as it is.
    """
    if _is_pipeline(value) or _is_module(value):
        value = {"model": value}
    if isinstance(value, list | tuple) and any(map(_is_module, value)):
        raise ConfigError(f"model is a {type(value).__name__} with a loaded model: {_AS_A_MAPPING}")
    if not isinstance(value, Mapping) or "model" not in value:
        return value
    model = value["model"]
    if not (_is_pipeline(model) or _is_module(model)):
        raise ConfigError(
            f"model.model is a {type(model).__name__}, and no loaded model: name a folder or a Hub "
            f"name in model.path, whose tokenizer is read with it; or {_AS_A_MAPPING}"
        )
    parts = [value[name] for name in _PARTS if value.get(name) is not None]
    for name in _PARTS:
        if value.get(name) is not None and not hasattr(value[name], "save_pretrained"):
            raise ConfigError(
                f"model.{name} is a {type(value[name]).__name__}: give the object that "
                "transformers has loaded"
            )
    rest = {name: item for name, item in value.items() if name not in ("model", *_PARTS)}
    if "path" in rest:
        raise ConfigError(f"model names both a path, {rest['path']!r}, and a loaded model")
    if _is_pipeline(model):
        if parts:
            raise ConfigError("the pipeline (model) has a tokenizer or processor: give no other")
        return {**rest, "path": _read_pipeline(model)}
    if not parts:
        raise ConfigError(
            f"the loaded {type(model).__name__} alone can't read rows: its tokenizer or processor "
            f"is needed, too; {_AS_A_MAPPING}"
        )
    _check_model(model)
    return {**rest, "path": LoadedModel((model, *parts))}


def with_loaded_model(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's keys with what its loaded pipeline says of them. Raises ConfigError."""
    if isinstance(given := data.get("pipeline_class"), type):
        place = _find_own_class(given) or f"{given.__module__}:{given.__qualname__}"
        data = {**data, "pipeline_class": place}
    data = {**data, "model": read_model_section(data["model"])} if "model" in data else {**data}
    model = data.get("model")
    loaded = model.get("path") if isinstance(model, Mapping) else None
    if not isinstance(loaded, LoadedModel):
        return data
    if loaded.task is not None:
        task = data.setdefault("task", loaded.task)
        if ALIASES.get(task, task) != ALIASES.get(loaded.task, loaded.task):
            raise ConfigError(
                f"task is {task}, and the pipeline (model) is one for {loaded.task}: leave task "
                "out, or give the pipeline's model and tokenizer instead of the pipeline"
            )
    if loaded.pipeline_class is not None:
        data["pipeline_class"] = data.get("pipeline_class") or loaded.pipeline_class
    data["parameters"] = {**loaded.parameters, **(data.get("parameters") or {})}
    return data


def _is_pipeline(value: Any) -> bool:
    return _has_base(value, "transformers.pipelines.base", "Pipeline")


def _is_module(value: Any) -> bool:
    return _has_base(value, "torch.nn.modules.module", "Module")


def _has_base(value: Any, module: str, name: str) -> bool:
    return any((c.__module__, c.__name__) == (module, name) for c in type(value).__mro__)


def _read_pipeline(pipeline: Any) -> LoadedModel:
    _check_model(pipeline.model)
    if getattr(pipeline, "assistant_model", None) is not None:
        raise ConfigError("the pipeline (model) has an assistant_model, which pipemill can't use")
    own_class = _find_own_class(type(pipeline))
    if own := [name for name in _STAGES if name in vars(pipeline)]:
        raise ConfigError(
            f"the pipeline (model) was given another {own[0]} than its class has, which workers "
            "would not know: give it to a class of its own (docs/own-pipelines.md)"
        )
    task = pipeline.task or None
    parts = [getattr(pipeline, name, None) for name in _PARTS]
    return LoadedModel(
        (pipeline.model, *(part for part in parts if part is not None)),
        task,
        own_class,
        _read_parameters(pipeline, None if own_class else task),
    )


def _find_own_class(cls: type) -> str | None:
    """Return the place of a user's class; None for one of transformers, or a restored one."""
    module, name = cls.__module__, cls.__qualname__
    if module.partition(".")[0] in ("transformers", "pipemill"):
        return None
    if module == "__main__" or not name.isidentifier():
        raise ConfigError(
            f"the pipeline's class {name} is defined in {module}, from where workers can't import "
            "it: put it at the top of a module, and use it from there"
        )
    if module.startswith("transformers_modules."):
        raise ConfigError(
            f"the pipeline's class {name} comes from code in its model's folder: name that folder "
            "or Hub name as the model, with model.trust_remote_code"
        )
    return f"{module}:{name}"


def _check_model(model: Any) -> None:
    """Raise ConfigError for a model that its files would not bring back as it is."""
    cls = type(model)
    if cls.__module__.startswith("peft."):
        raise ConfigError(
            f"the loaded model is a {cls.__name__}: merge its adapter (model.merge_and_unload()), "
            "or save it, and name the folder in model.adapter"
        )
    if not cls.__module__.startswith("transformers.models."):
        raise ConfigError(
            f"the loaded model is a {cls.__module__}.{cls.__name__}, and transformers would load "
            "another class from its files: give a model of one of transformers' own classes, or "
            "name a folder that has the class's code, with model.trust_remote_code"
        )
    if any(weights.is_meta for weights in model.parameters()):
        raise ConfigError(
            f"weights of the loaded {cls.__name__} are on the device meta, where they have no "
            "values: load the model with them, or name its folder"
        )
    if any(type(part).__module__.startswith("torch.ao.") for part in model.modules()):
        raise ConfigError(
            f"the loaded {cls.__name__} holds modules that torch quantized, which its files would "
            "not bring back: give the model as it was before"
        )
    for name, part in model.named_modules():
        given = vars(part).get("forward"), vars(part).get("_hf_hook")  # the latter of accelerate
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if any(map(_is_own_function, [*given, *hooks])):
            raise ConfigError(
                f"{name or 'the model'} in the loaded {cls.__name__} has a hook, or was given a "
                "forward, which its files would not bring back: remove it, or do the same in a "
                "pipeline's class of your own (docs/own-pipelines.md)"
            )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(
            f"the loaded {cls.__name__} holds adapters, which are not saved with it: name its base "
            "in model.path, and the adapter's folder in model.adapter"
        )


def _is_own_function(function: Any) -> bool:
    """Tell whether a function in a model, if it is one, is neither transformers' nor torch's.

    A function that wraps another one takes over its `__module__`, but not its globals.
    """
    if function is None:
        return False
    names = getattr(function, "__globals__", {})
    module = names.get("__name__") or type(function).__module__
    inner = (getattr(function, name, None) for name in ("func", "__wrapped__"))
    return module.partition(".")[0] not in _LIBRARIES or any(map(_is_own_function, inner))


def _read_parameters(pipeline: Any, task: str | None) -> dict[str, Any]:
    """Return the parameters with which a pipeline was made.

    transformers stores what it makes of them. Those returned are stored as the same.

    Args:
        pipeline: the pipeline.
        task: its task; None if its class is the user's, which may have any parameters.

    Raises:
        ConfigError: it was made with parameters that the task lacks, or that can't be found.
    """
    stored = (pipeline._preprocess_params, pipeline._forward_params, pipeline._postprocess_params)
    usual = _sanitize(pipeline, {}) or ({}, {}, {})
    generate = getattr(pipeline, "_generate_kwargs", {})
    changed = {
        name: value.value if isinstance(value, Enum) else value
        for group, before in zip(stored, usual, strict=True)
        for name, value in group.items()
        if not name.startswith("_") and not (name in before and _are_equal(before[name], value))
    }
    flags: list[dict[str, Any]] = []
    unknown: list[str] = []
    if task is not None:
        try:
            known = find_task(task).parameters
        except LookupError:
            known = {}
        # Some flags are stored under another name.
        names = [name for name, parameter in known.items() if "bool" in parameter.kind.split("|")]
        flags = [{name: value} for name in names for value in (True, False)]
        unknown = sorted({*changed, *generate} - known.keys())
        changed = {name: value for name, value in changed.items() if name in known}
        if set(unknown) & generate.keys():
            raise _explain_parameters(unknown)
    for flag in ({}, *flags):
        given = {**changed, **flag}
        if _are_equal(_sanitize(pipeline, given), stored):
            return {**given, **generate}
    raise _explain_parameters(unknown or sorted(changed))


def _explain_parameters(names: list[str]) -> ConfigError:
    return ConfigError(
        f"the pipeline (model) was made with {', '.join(names) or 'parameters'}, which pipemill "
        "can't take over: make it without, and say in parameters what you want instead"
    )


def _sanitize(pipeline: Any, given: Mapping[str, Any]) -> tuple[Any, ...] | None:
    try:
        return tuple(pipeline._sanitize_parameters(**given))
    except Exception:  # a user's class may ask for some
        return None


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arrays and tensors
        return False
