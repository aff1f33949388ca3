"""Read what a model's folder says about how the model is used, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.actors.task import Followed
from pipemill.pipelines.embeddings.embedding_head import WEIGHTS
from pipemill.pipelines.embeddings.sentence_transformers_files import MODULES, find_first_module
from pipemill.pipelines.embeddings.static_folder import MODULE
from pipemill.pipelines.loading.checkpoint import CheckpointError, check_pickled, read_tensors
from pipemill.pipelines.loading.model_files import ModelFiles

from pipemill.errors import ConfigError

from .fingerprint import FIELD_DEFAULTS
from .models.find_on_hub import explain_hub_error
from .resolve_task import ResolvedTask, select_parameters

if TYPE_CHECKING:
    from ..config.job import Job


def follow_conventions(
    job: Job, task: ResolvedTask, decides: Mapping[str, Any] | None = None
) -> ResolvedTask:
    """Return the task with what the model's folder says, and what of it the task follows.

    Args:
        decides: the fingerprint's fields of an output. Where the output is older than this
            reading, its results did not follow the folder.

    Raises:
        ConfigError: the folder says what can't be followed.
    """
    spec, model = task.spec, task.model
    parameters = spec.with_defaults(select_parameters(job, spec))
    files: Mapping[str, Any] = {}
    try:
        if not decides or decides.keys() & FIELD_DEFAULTS.keys():
            files = spec.files(_choose_reader(model))
        followed = spec.follow(parameters, files)
    except ValueError as error:
        raise ConfigError(f"the model {job.model.path}: {error}") from None
    _check_weights(job, model, followed)
    asks = followed.pooling is not None and parameters.get("pooling") == "auto"
    if asks and MODULES not in files and model.is_unknown(MODULES):
        followed = replace(followed, pooling=f"{followed.pooling}; no {MODULES} in the cache")
    return replace(task, files=files, followed=followed)


def follow_as_output_did(job: Job, task: ResolvedTask, decides: Mapping[str, Any]) -> ResolvedTask:
    """Return the task as the results of an output follow the model folder: older ones do not.

    Args:
        task: with what the model folder says.
        decides: what decides the results of the output; empty without an output.
    """
    if not decides or decides.keys() & FIELD_DEFAULTS.keys():
        return task
    older = follow_conventions(job, task, decides)
    return replace(older, followed=replace(older.followed, notes=task.followed.notes))


def find_loaded_folder(folder: Path) -> Path:
    """Return the folder with the weights: the transformer's, or static embeddings'.

    In a folder of sentence-transformers it may be a lower one. Raise ConfigError if modules.json
    begins with another module.
    """
    if (folder / "config.json").exists() or not (folder / MODULES).exists():
        return folder
    try:
        module, inner = find_first_module(_read_json(folder / MODULES))
    except ValueError as error:
        raise ConfigError(f"the model {folder}: {error}") from None
    if module not in ("Transformer", MODULE):
        raise ConfigError(
            f"the model {folder} is not a model of transformers: {MODULES} begins with the module "
            f"{module}, which pipemill can't run"
        )
    return folder / inner


def begins_with_static(root: Path) -> bool:
    """Tell whether modules.json, if there is one, begins with static embeddings."""
    file = root / MODULES
    return file.is_file() and find_first_module(_read_json(file))[0] == MODULE


def _choose_reader(files: ModelFiles) -> Callable[[str], Any]:
    def read(name: str) -> Any:
        file = _find(files, name)
        return None if file is None else _read_json(file)

    return read


def _find(files: ModelFiles, name: str) -> Path | None:
    """Return the path of a file, if the model has it. Raises ConfigError, RunError."""
    try:
        return files.find(name)
    except OSError as error:
        raise explain_hub_error(error, files.path) from None


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None


def _check_weights(job: Job, files: ModelFiles, followed: Followed) -> None:
    """Raise ConfigError for a module without whole weights, or with pickles if none may be read."""
    for folder in followed.weights:
        safe, pickled = (_find(files, f"{folder}/{name}") for name in WEIGHTS)
        try:
            if safe is not None:
                read_tensors([safe])
                continue
            check_pickled([] if pickled is None else [pickled])
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        if pickled is None:
            raise ConfigError(
                f"the model {job.model.path}: the module {folder} has no weights: there is no "
                f"{folder}/{WEIGHTS[0]}"
            )
        if job.model.use_safetensors:
            raise ConfigError(
                f"the model {job.model.path}: the weights of the module {folder} are pickled "
                f"({folder}/{WEIGHTS[1]}), and a pickle may run code when it is read: save them "
                "with save_pretrained of sentence-transformers, or set model.use_safetensors to "
                "false"
            )
