"""Find a model, or say where it was looked for, before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.storage.remote_folder import find_cache_folder
from pipemill.pipelines.loading.adapters.merge_adapter import ADAPTER_CONFIG, MergedAdapter
from pipemill.pipelines.loading.checkpoint import (
    CheckpointError,
    check_dtype,
    check_files,
    check_pickled,
    describe_other_folder,
    find_weights,
    read_tensors,
)
from pipemill.pipelines.loading.extras import find_package, is_installed
from pipemill.pipelines.loading.fit_process import FitCheck
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.loading.task_loader import LoadTask

from pipemill.errors import ConfigError, ModelError, RunError

from ..config.loaded_model import LoadedModel
from .fingerprint import digest_folder, hash_fields
from .model_conventions import begins_with_static, find_loaded_folder
from .models.fetch_model import fetch_model, is_remote
from .models.find_adapter import (
    Adapter,
    check_adapter,
    find_adapter,
    is_adapter,
    merge,
    read_base,
    require_peft,
)
from .models.find_on_hub import find_on_hub
from .models.save_model import save_model
from .user_code import read_config

if TYPE_CHECKING:
    from ..config.task_entry import ModelSection
    from .resolve_task import ResolvedTask


def digest_model(model: ModelSection, files: ModelFiles) -> str:
    """Return what changes when the model's files do: on the Hub, the commit."""
    try:
        if isinstance(files.remote, MergedAdapter):  # merging may round differently elsewhere
            return files.remote.digest
        return files.revision or digest_folder(Path(files.root or files.path))
    except OSError as error:
        raise _explain_unreadable(model, error) from None


def resolve_model(model: ModelSection) -> ModelFiles:
    """Return the files that a worker loads. Raise ConfigError if there are none."""
    if model.adapter is not None:
        base = model.model_copy(update={"adapter": None})
        return _find_merged(model, base, _find_adapter(model, model.adapter))
    if isinstance(model.path, LoadedModel):
        return _find_in_copy(model, save_model(model.path))
    if is_remote(model.path):
        remote = fetch_model(model)
        if is_adapter(remote.copy):
            return _find_with_base(model, remote.copy)
        files = _find_in_copy(model, remote.copy)
        return replace(files, root=str(remote.copy), remote=remote)
    folder = Path(model.path).expanduser()
    if is_adapter(folder):
        return _find_with_base(model, folder)
    if folder.is_dir():
        try:
            return _find_in_folder(model, folder)
        except OSError as error:
            raise _explain_unreadable(model, error) from None
    if folder.is_file():
        raise ConfigError(
            f"model.path {model.path} is a file: name the folder that holds config.json and the "
            "weights (or a name on the Hugging Face Hub)"
        )
    if model.path.startswith((".", "/", "~")) or model.path.count("/") > 1:
        raise ConfigError(f"no model at {model.path}: there is no folder {folder.resolve()}")
    found = find_on_hub(model)
    if found.name == ADAPTER_CONFIG:
        return _find_with_base(model, found.parent)
    return ModelFiles(model.path, found.parent.name)  # …/snapshots/COMMIT/config.json


def with_digests(task: ResolvedTask) -> ResolvedTask:
    """Return a task, of which each of several has a digest of its model's files."""
    steps = (
        replace(step, digest=digest_model(step.job.model, step.task.model)) for step in task.steps
    )
    return replace(task, steps=tuple(steps))


def check_fit(load: LoadTask, here: bool) -> None:
    """Raise ConfigError for a model that would answer its task at random, or not at all.

    Args:
        load: the task and the model, as workers load them.
        here: whether this process computes, too, and so may import torch; else the check runs in
            another process, and a driver stays small, unless it has imported transformers anyway.
    """
    if here or "transformers.pipelines" in sys.modules:
        misfit = load.find_misfit()
    else:
        with FitCheck(load) as check:
            import_module("ray.data")  # takes as long, and is needed next
            misfit = check.result()
    if misfit is not None:
        raise ConfigError(misfit)


def name_model(message: str, model: ModelSection, folder: str) -> str:
    """Put a model's URL, or the class of a loaded one, where a message names its local copy."""
    if isinstance(model.path, LoadedModel) or folder.startswith(str(find_cache_folder())):
        return message.replace(folder, str(model.path).rstrip("/"))
    return message


def load_failure(error: Exception, *models: str) -> RunError:
    """Return the error of a model that did not load, by whether another try may help."""
    why = LoadError.of(error)
    if why.for_good:
        return explain_load_error(models, str(why))
    return RunError(f"{why}; run again when that has passed")


def explain_load_error(models: tuple[str, ...], why: str) -> ModelError:
    """Return the error of a model that will never load. It names the model."""
    if len(models) > 1 or models[0] in why:  # of several, the message names the task
        return ModelError(why)
    return ModelError(f"{why} (the model is {models[0]})")


def _find_adapter(model: ModelSection, name: str) -> Adapter:
    if is_remote(name):
        remote = fetch_model(model.model_copy(update={"path": name}))
        folder = str(remote.copy)
        files = ModelFiles(folder, root=folder, remote=remote)
        return check_adapter(name, Adapter(files, remote.copy))
    return find_adapter(name, model.revision if model.adapter is None else None)


def _find_with_base(model: ModelSection, folder: Path) -> ModelFiles:
    """Return the files of an adapter alone, in a folder, merged into the base that it names."""
    base_path = read_base(folder, str(model.path))
    base = model.model_copy(update={"path": base_path, "revision": None})
    return _find_merged(model, base, _find_adapter(model, str(model.path)))


def _find_merged(model: ModelSection, base: ModelSection, adapter: Adapter) -> ModelFiles:
    """Return the files of an adapter that is merged into its base. Raises ConfigError."""
    name = model.adapter or str(model.path)
    require_peft(name)
    try:
        files = resolve_model(base)
    except ConfigError as error:
        raise ConfigError(
            f"{name} is a PEFT adapter, and its base can't be used: {error}"
        ) from None
    on_disk = ModelFiles(str(adapter.folder))
    digest = hash_fields(
        {"base": digest_model(base, files), "adapter": digest_model(base, on_disk)}
    )
    merged = MergedAdapter(files, adapter.files, digest, str(model.path), model.use_safetensors)
    merge(merged, name, str(base.path))
    found = _find_in_copy(model, merged.copy)
    return replace(found, root=str(merged.copy), remote=merged)


def _find_in_copy(model: ModelSection, folder: Path) -> ModelFiles:
    """Return the files of a model that was fetched or saved. Raise ConfigError that names it."""
    try:
        return _find_in_folder(model, folder)
    except ConfigError as error:
        raise ConfigError(name_model(str(error), model, str(folder))) from None


def _find_in_folder(model: ModelSection, root: Path) -> ModelFiles:
    """Return the files of a model below a folder. Raises ConfigError, OSError."""
    folder = find_loaded_folder(root)
    _check_folder(model, root, folder)
    return ModelFiles(str(folder.resolve()), root=None if folder == root else str(root.resolve()))


def _explain_unreadable(model: ModelSection, error: OSError) -> ConfigError:
    return ConfigError(f"can't read the model {model.path}: {error}")


def _check_folder(model: ModelSection, root: Path, folder: Path) -> None:
    names = os.listdir(folder)
    if "config.json" not in names and not begins_with_static(root):
        raise ConfigError(
            f"{model.path} is not a model: {folder / 'config.json'} is not there; "
            f"{describe_other_folder(folder)}"
        )
    pickled = sorted(file.name for file in folder.glob("*.bin") if file.name != "training_args.bin")
    if model.use_safetensors and pickled and not any(folder.rglob("*.safetensors")):
        raise ConfigError(
            f"the weights in {folder} are pickled ({pickled[0]}), and a pickle may run code when "
            "it is read: save them with save_pretrained, or set model.use_safetensors to false"
        )
    try:
        check_files(folder, (folder / name for name in names))
        config = read_config(str(folder), None)
        check_dtype(folder, config)
        # The model's code may keep its weights anywhere.
        if not (model.trust_remote_code and config.get("auto_map")):
            weights = find_weights(folder, config, pickled=not model.use_safetensors)
            read_tensors(file for file in weights if file.suffix == ".safetensors")
            check_pickled(file for file in weights if file.suffix == ".bin")
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    _check_quantization(model, config)


# What transformers needs for weights that a library has quantized: modules by method.
_QUANTIZERS: dict[str, tuple[str, ...]] = {
    "aqlm": ("accelerate", "aqlm"),
    "auto-round": ("auto_round",),
    "awq": ("accelerate", "gptqmodel"),
    "bitnet": ("accelerate",),
    "bitsandbytes": ("accelerate", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("accelerate", "kernels"),
    "fbgemm_fp8": ("accelerate", "fbgemm_gpu"),
    "fp8": ("accelerate",),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("accelerate", "flute"),
    "hqq": ("hqq",),
    "mxfp4": ("accelerate",),
    "quanto": ("accelerate", "optimum.quanto"),
    "quark": ("quark",),
    "spqr": ("accelerate", "spqr_quant"),
    "torchao": ("torchao",),
    "vptq": ("accelerate", "vptq"),
}


def _check_quantization(model: ModelSection, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping) or os.environ.get("RAY_ADDRESS"):
        return  # the workers of another machine may have what this one lacks
    method = str(quantization.get("quant_method") or _guess_method(quantization))
    missing = [name for name in _QUANTIZERS.get(method, ()) if not is_installed(name)]
    if missing:
        raise ConfigError(
            f"the weights of {model.path} are quantized with {method} (config.json), and "
            f"{' and '.join(missing)} can't be imported here: on every machine of the cluster, pip "
            f"install {' '.join(map(find_package, missing))}; or name "
            "a checkpoint that is not quantized"
        )


def _guess_method(quantization: Mapping[str, Any]) -> str:
    # Old bitsandbytes configurations name no method.
    return "bitsandbytes" if quantization.keys() & {"load_in_4bit", "load_in_8bit"} else "unknown"
