"""Find a task by its name. Knowing a task imports neither torch nor transformers."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from pipemill.errors import ConfigError

from .task_spec import TaskSpec, as_spec

_TASKS = {
    "any-to-any": "tasks.multimodal_generation:ANY_TO_ANY",
    "audio-classification": "tasks.media_classification:AUDIO_CLASSIFICATION",
    "automatic-speech-recognition": "tasks.audio:AUTOMATIC_SPEECH_RECOGNITION",
    "conversational": "tasks.text_generation:CONVERSATIONAL",
    "decision": "tasks.decision:DECISION",
    "depth-estimation": "tasks.vision:DEPTH_ESTIMATION",
    "document-question-answering": "tasks.question_answering:DOCUMENT_QUESTION_ANSWERING",
    "feature-extraction": "tasks.feature_extraction:FeatureExtraction",
    "fill-mask": "tasks.fill_mask:FILL_MASK",
    "image-classification": "tasks.media_classification:IMAGE_CLASSIFICATION",
    "image-feature-extraction": "tasks.image_feature_extraction:IMAGE_FEATURE_EXTRACTION",
    "image-segmentation": "tasks.vision:IMAGE_SEGMENTATION",
    "image-text-to-text": "tasks.multimodal_generation:IMAGE_TEXT_TO_TEXT",
    "image-to-image": "tasks.vision:IMAGE_TO_IMAGE",
    "image-to-text": "tasks.multimodal_generation:IMAGE_TO_TEXT",
    "keypoint-matching": "tasks.vision:KEYPOINT_MATCHING",
    "mask-generation": "tasks.vision:MASK_GENERATION",
    "object-detection": "tasks.vision:OBJECT_DETECTION",
    "question-answering": "tasks.question_answering:QUESTION_ANSWERING",
    "summarization": "tasks.text_generation:SUMMARIZATION",
    "table-question-answering": "tasks.question_answering:TABLE_QUESTION_ANSWERING",
    "text-classification": "tasks.text_classification:TextClassification",
    "text-generation": "tasks.text_generation:TEXT_GENERATION",
    "text-to-audio": "tasks.audio:TEXT_TO_AUDIO",
    "text2text-generation": "tasks.text_generation:TEXT2TEXT_GENERATION",
    "token-classification": "tasks.token_classification:TOKEN_CLASSIFICATION",
    "translation": "tasks.text_generation:TRANSLATION",
    "video-classification": "tasks.media_classification:VIDEO_CLASSIFICATION",
    "visual-question-answering": "tasks.question_answering:VISUAL_QUESTION_ANSWERING",
    "zero-shot-audio-classification": "tasks.media_classification:ZERO_SHOT_AUDIO_CLASSIFICATION",
    "zero-shot-classification": "tasks.zero_shot_classification:ZeroShotClassification",
    "zero-shot-image-classification": "tasks.media_classification:ZERO_SHOT_IMAGE_CLASSIFICATION",
    "zero-shot-object-detection": "tasks.vision:ZERO_SHOT_OBJECT_DETECTION",
}
ALIASES = {
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
    "text-to-speech": "text-to-audio",
    "vqa": "visual-question-answering",
}
_TRANSLATION = re.compile(r"translation_\w+_to_\w+")
# Where another package says which tasks it brings: name = "module:TASK" in its pyproject.toml.
ENTRY_POINTS = "pipemill.tasks"
# Tasks that this program registered: from where workers import each.
_registered: dict[str, str] = {}


def register_task(location: str) -> TaskSpec:
    """Register a task for this program and the workers of its jobs.

    Args:
        location: "package.module:NAME" of a `PipelineTask`, or of a class with the attributes and
            methods of `Task`. Workers import it, so it can't be in a notebook or `__main__`.

    Returns:
        The task as jobs find it by its name.

    Raises:
        ConfigError: The task can't be imported or used, or another task has its name.
    """
    module, _, attribute = str(location).partition(":")
    if not (module and attribute) or module == "__main__":
        raise ConfigError(
            f"{location!r} is not the place of a task: name it as 'package.module:NAME', in a "
            "module that workers can import"
        )
    point = EntryPoint(attribute, location, ENTRY_POINTS)
    try:
        task = _load_task(point, check_name=False)
    except LookupError as error:
        raise ConfigError(str(error.args[0])) from error
    if task.name in {*_TASKS, *ALIASES}:
        raise ConfigError(f"{location} has the name of a task of pipemill, {task.name!r}")
    _registered[task.name] = location
    return task


def find_registered(name: str) -> str | None:
    """Return from where workers import a task; None for one that they find by its name."""
    return _registered.get(name)


def is_built_in(name: str) -> bool:
    """Tell whether a task is one of pipemill, by its name or an alias."""
    return ALIASES.get(name, name) in _TASKS or bool(_TRANSLATION.fullmatch(name))


def task_names() -> list[str]:
    """Return the names of all tasks, those of installed packages among them."""
    return sorted(
        {*_TASKS, *_registered, *(point.name for point in entry_points(group=ENTRY_POINTS))}
    )


def find_task(name: str) -> TaskSpec:
    """Return the task of that name, or of that alias.

    Raises:
        LookupError: there is no such task (the message has the nearest name), or its package
            can't be used.
    """
    if home := _TASKS.get(ALIASES.get(name, name)):
        module, attribute = home.split(":")
        return as_spec(getattr(import_module(f"pipemill.pipelines.{module}"), attribute))
    if _TRANSLATION.fullmatch(name):
        return replace(find_task("translation"), name=name)
    if name in _registered:
        return register_task(_registered[name])
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return _load_task(point)
    if near := get_close_matches(name, [*task_names(), *ALIASES], n=1):
        raise LookupError(f"no task {name!r}; did you mean {near[0]!r}?")
    raise LookupError(f"no task {name!r}; there are {', '.join(task_names())}")


def _load_task(point: EntryPoint, *, check_name: bool = True) -> TaskSpec:
    """Return a task that another package brings. Raise LookupError if it can't be used."""
    try:
        task = point.load()
        if check_name and task.name != point.name:
            raise ValueError(f"it calls itself {task.name!r}")
        if missing := {"inputs", "parameters", "results", "check"} - set(dir(task)):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return as_spec(task)
    except Exception as error:
        raise LookupError(
            f"the task {point.name!r} of {point.value}"
            f"{f' (entry point {ENTRY_POINTS})' if check_name else ''} can't be used: "
            f"{type(error).__name__}: {error}"
        ) from error


def is_transformers_task(name: str) -> bool:
    """Tell whether the installed transformers has a task of that name."""
    table = _read_transformers_file("pipelines/__init__.py")
    return re.search(rf'^    "{re.escape(name)}": {{$', table, re.M) is not None


def has_transformers_model(model_type: str) -> bool:
    """Tell whether the installed transformers has code for a type of model, such as "bert"."""
    table = _read_transformers_file("models/auto/auto_mappings.py")
    table += _read_transformers_file("models/auto/configuration_auto.py")
    return f'("{model_type}", ' in table


def _read_transformers_file(file: str) -> str:
    """Return one of its source files: importing it would import torch for a misspelt name."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return ""
    path = Path(spec.submodule_search_locations[0]) / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""
