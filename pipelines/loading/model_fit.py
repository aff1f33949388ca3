"""Check that a checkpoint fits its task before anything is started: no weights are read.

transformers fills weights that a checkpoint lacks with random numbers, and makes a tokenizer of
special tokens where it finds no vocabulary; both only log a line. Here transformers itself loads
the model, with its renamings, ties and exceptions, from tensors that have a name, a type and a
shape, and no values (torch's meta device). What this finds is certain; where anything else goes
wrong on the way there is no verdict, and loading it on a worker says what is wrong.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import nullcontext
from typing import Any

from ..embeddings.sentence_transformers_files import is_model2vec
from ..label_names import check_label_names
from ..restored import restore_pipelines
from ..task_spec import TaskSpec
from .fast_imports import gc_paused
from .model import Model
from .tokenizer_fit import find_tokenizer_misfit
from .weights_fit import find_weights_misfit, load_without_values, read_weights

# Heads whose weights have the same names in many models, and another meaning.
_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
    "ForAudioFrameClassification",
    "ForImageClassification",
    "ForVideoClassification",
)
# By the medium that a task reads, what a model of it calls its input.
_MAIN_INPUTS = {
    "text": ("input_ids",),
    "image": ("pixel_values", "input_ids"),
    "audio": ("input_features", "input_values"),
}
# What a model is given by tasks whose auto class takes models of all kinds.
_GIVEN = {
    "feature-extraction": ("input_ids",),
    "image-feature-extraction": ("pixel_values",),
    "zero-shot-audio-classification": ("input_ids", "input_features"),
}
# Of models that compare texts with images, the name of the part that makes vectors alone.
_TOWERS = {"feature-extraction": "TextModel", "image-feature-extraction": "VisionModel"}
# Tasks that look up a name for the number of each output.
_LABELLED = (
    "audio-classification",
    "image-classification",
    "token-classification",
    "video-classification",
    "zero-shot-classification",
)
# Models that the task's pipeline takes, beyond those that its auto classes list: by configuration,
# or by the tables of transformers that they are in.
_BEYOND_TABLES = {("document-question-answering", "VisionEncoderDecoderConfig")}
_MORE_TABLES = {
    "image-segmentation": (
        "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        "MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES",
    ),
}


def find_misfit(spec: TaskSpec, model: Model, own: bool) -> str | None:
    """Return why the model can't do the task, or None if nothing is known against it.

    Args:
        spec: the task.
        model: the model; with its `allow_missing` missing weights are not looked for.
        own: whether the pipeline is the user's, which may load the model in its own way.
    """
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        return _find_misfit(spec, model, own)
    except Exception:  # no verdict: other code than transformers' own, or a library is missing
        return None
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _find_misfit(spec: TaskSpec, model: Model, own: bool) -> str | None:
    # The user's process has imported them, and holds much else that is not to stay.
    with nullcontext() if "transformers.pipelines" in sys.modules else gc_paused():
        restore_pipelines()
    task = spec.name
    classes, pipeline_class = model.find_classes(task)
    if is_model2vec(model.files.json("config.json")):
        return f"{model.path} holds static embeddings, which only feature-extraction can use"
    if task in _LABELLED:
        try:
            check_label_names(model.files.json("config.json") or {})
        except ValueError as error:
            return f"{model.path}: {error}"
    # transformers does as if there were none.
    generates = getattr(pipeline_class, "_pipeline_calls_generate", False)
    if generates and (damage := model.files.find_damage("generation_config.json")):
        return damage
    try:
        config = model.read_config()
    except ValueError as error:
        # The user's module may make its type of model known while it is imported.
        return None if own else f"{model.path}: {str(error).splitlines()[0]}"
    if encoder := model.find_encoder(task):
        classes = (encoder,)
    if _is_remote(config, model) or getattr(config, "quantization_config", None) is not None:
        return None
    model_class = next(filter(None, (_find_concrete(c, config) for c in classes)), None)
    if model_class is None and not own:
        model_class = _find_named_class(config, spec, pipeline_class)
        if model_class is None:
            return f"{model.path} {_describe_other_type(config, task, classes)}"
    if model_class is None:
        return None
    if not own and (reason := _find_other_medium(config, model_class, task)):
        return f"{model.path} {reason}"
    if not model.allow_missing and (reason := _find_other_head(config, model_class, task)):
        return f"{model.path} {reason}"
    loaded, info = load_without_values(model_class, config, read_weights(model, config))
    if not model.allow_missing and (reason := find_weights_misfit(loaded, info, task)):
        return f"{model.path}: {reason}"
    if any(getattr(pipeline_class, f"_load_{part}", False) for part in ("tokenizer", "processor")):
        # Texts that are written need a vocabulary, too; other inputs have other tables.
        return find_tokenizer_misfit(model, loaded, _reads_text(spec))
    return None


def _reads_text(spec: TaskSpec) -> bool:
    return any(column.kind in ("text", "messages") for column in spec.inputs)


def _is_remote(config: Any, model: Model) -> bool:
    return bool(model.trust_remote_code and getattr(config, "auto_map", None))


def _find_concrete(model_class: Any, config: Any) -> Any:
    """Return the class that an auto class makes of this configuration, or None."""
    from transformers.models.auto.auto_factory import _get_model_class

    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class
    return _get_model_class(config, mapping) if type(config) in mapping else None


def _find_named_class(config: Any, spec: TaskSpec, pipeline_class: Any) -> Any:
    """Return the class that config.json names, if the task's pipeline can work with it.

    transformers takes it if no auto class of the task knows the model, whether it fits or not.
    Models that generate from the right medium do work: T5 continues texts, a LLaMA summarizes.
    """
    import transformers

    named = getattr(transformers, (config.architectures or [""])[0], None)
    if named is None:
        return None
    if (spec.name, type(config).__name__) in _BEYOND_TABLES or _is_in_more_tables(named, spec.name):
        return named
    if not (getattr(pipeline_class, "_pipeline_calls_generate", False) and named.can_generate()):
        return None
    if spec.name == "document-question-answering":  # generates with Donut alone
        return None
    kinds = {column.kind for column in spec.inputs}
    medium = next((kind for kind in ("audio", "image") if kind in kinds), "text")
    return named if named.main_input_name in _MAIN_INPUTS[medium] else None


def _is_in_more_tables(named: Any, task: str) -> bool:
    from transformers.models.auto import modeling_auto

    tables = (getattr(modeling_auto, name, {}) for name in _MORE_TABLES.get(task, ()))
    return any(named.__name__ in table.values() for table in tables)


def _describe_other_type(config: Any, task: str, classes: tuple[Any, ...]) -> str:
    named = ", ".join(config.architectures or ()) or f"a model of type {config.model_type}"
    wanted = " or ".join(c.__name__ for c in classes)
    return (
        f"holds {named} (model_type {config.model_type}), which can't do {task}: that needs a "
        f"model that transformers' {wanted} can load"
    )


def _find_other_medium(config: Any, model_class: Any, task: str) -> str | None:
    taken = inspect.signature(model_class.forward).parameters
    lacks = [name for name in _GIVEN.get(task, ()) if name not in taken]
    if not lacks:
        return _find_two_towers(config, model_class, task)
    return (
        f"holds {model_class.__name__} (model_type {config.model_type}), which can't do {task}: "
        f"that needs a model of {' and '.join(_GIVEN[task])}, and this one's input is "
        f"{model_class.main_input_name}"
    )


def _find_two_towers(config: Any, model_class: Any, task: str) -> str | None:
    """Return why a model such as CLIP makes no vectors: it wants a text beside each image."""
    import transformers

    compares = transformers.AutoModelForZeroShotImageClassification._model_mapping
    if task not in _TOWERS or type(config) not in compares:
        return None
    name = model_class.__name__.removesuffix("Model") + _TOWERS[task]
    part = getattr(transformers, name, None)
    loads = part is not None and part.config_class in transformers.AutoModel._model_mapping
    hint = (
        f". Save the part that you need: transformers.{name}.from_pretrained(MODEL)"
        ".save_pretrained(FOLDER), and copy what reads its inputs there"
    )
    return (
        f"holds {model_class.__name__} (model_type {config.model_type}), which can't do {task}: it "
        f"compares texts with images, and needs both{hint if loads else ''}"
    )


def _find_other_head(config: Any, model_class: Any, task: str) -> str | None:
    def head(name: str) -> str | None:
        return next((end for end in _CLASSIFIERS if name.endswith(end)), None)

    named, wanted = (config.architectures or [""])[0], model_class.__name__
    if head(named) is None or head(wanted) is None or head(named) == head(wanted):
        return None
    return (
        f"holds {named} (architectures in config.json), and {task} needs a {wanted}: name a model "
        "that was trained for this task"
    )
