"""Find a model, or say where it was looked for, before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

from pipemill.actors.loading import LoadError

from .errors import ConfigError, ModelError, RunError
from .fingerprint import digest_folder
from .job import ModelSection


def find_model(model: ModelSection) -> tuple[str, str | None, str]:
    """The path and revision that a worker loads, and a digest of the weights."""
    path, commit = locate_model(model)
    try:
        return path, commit, commit or digest_folder(Path(path))
    except OSError as error:
        raise _unreadable(model, error) from None


def locate_model(model: ModelSection) -> tuple[str, str | None]:
    """The path and revision that a worker loads."""
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        try:
            _check_folder(model, folder)
        except OSError as error:
            raise _unreadable(model, error) from None
        return str(folder.resolve()), None
    if model.path.startswith((".", "/", "~")) or model.path.count("/") > 1:
        raise ConfigError(f"no model at {model.path}: there is no folder {folder.resolve()}")
    return model.path, _find_on_hub(model)


def not_loaded(error: Exception, path: str) -> RunError:
    """What to raise for a model that did not load: whether another try may help decides."""
    why = LoadError.of(error)
    if why.for_good:
        return never_loads(path, str(why))
    return RunError(f"{why}; run again when that has passed")


def never_loads(path: str, why: str) -> ModelError:
    return ModelError(f"{why} (the model is {path})")


def _unreadable(model: ModelSection, error: OSError) -> ConfigError:
    return ConfigError(f"can't read the model {model.path}: {error}")


def _check_folder(model: ModelSection, folder: Path) -> None:
    if "config.json" not in os.listdir(folder):
        raise ConfigError(
            f"{model.path} is no model: {folder / 'config.json'} is not there "
            "(save it with save_pretrained)"
        )
    pickled = sorted(file.name for file in folder.glob("*.bin") if file.name != "training_args.bin")
    if model.use_safetensors and pickled and not any(folder.rglob("*.safetensors")):
        raise ConfigError(
            f"the weights in {folder} are pickled ({pickled[0]}), and a pickle may run code when "
            "it is read: save them with save_pretrained, or set model.use_safetensors to false"
        )


def _find_on_hub(model: ModelSection) -> str:
    """The commit that the name stands for, from the local cache or the Hub."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        config = hf_hub_download(model.path, "config.json", revision=model.revision)
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"no model {model.path!r}: no such folder in {os.getcwd()}, not in the cache "
            f"({constants.HF_HUB_CACHE}), and not to be had from the Hub "
            f"({type(error).__name__}: {reason[0]})"
        ) from None
    return Path(config).parent.name  # …/snapshots/COMMIT/config.json
