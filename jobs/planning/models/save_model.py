"""Save a model that is in memory: for this process, and in an output for workers and later runs."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipemill.actors.output.layout import STORED_MODEL
from pipemill.actors.storage.filesystem import copy_atomic
from pipemill.pipelines.loading.model_files import ModelFiles

from pipemill.errors import ConfigError

from ...config.loaded_model import LoadedModel
from ..fingerprint import digest_folder

if TYPE_CHECKING:
    from ...config.job import Job
    from ...output.ledger import Ledger

_LAST = "config.json"  # without which a folder is no model


def save_model(loaded: LoadedModel) -> Path:
    """Save a model in a folder named by its content, which is removed when this process ends.

    Raises:
        ConfigError: it can't be saved.
    """
    home = _make_temporary_folder()
    folder = Path(tempfile.mkdtemp(dir=home))
    try:
        with _hide_progress():
            for part in loaded.parts:
                part.save_pretrained(folder)
    except Exception as error:  # a full disk, or a part that transformers can't save
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(
            f"can't save {loaded} in {home} (TMPDIR names another folder): "
            f"{type(error).__name__}: {error}"
        ) from error
    named = home / digest_folder(folder)
    if named.exists():
        shutil.rmtree(folder)
    else:
        os.replace(folder, named)
    return named


def needs_model(job: Job, ledger: Ledger, digest: str) -> bool:
    """Return whether `with_stored_model` has something to write."""
    is_loaded = isinstance(job.model.path, LoadedModel)
    return is_loaded and ledger.read(f"{STORED_MODEL}/{digest}/{_LAST}") is None


def with_stored_model(job: Job, ledger: Ledger, model: ModelFiles, digest: str) -> Job:
    """Return the job; one whose model is in memory reads it from the output instead.

    Args:
        job: the job.
        ledger: the output, to which the model is written unless it is there.
        model: what `save_model` has saved.
        digest: of these files.
    """
    if not isinstance(job.model.path, LoadedModel):
        return job
    if needs_model(job, ledger, digest):
        folder = Path(model.path)
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*.*")]
        try:
            for name in sorted(names, key=lambda name: name == _LAST):
                target = ledger.store.locate(f"{STORED_MODEL}/{digest}/{name}")
                copy_atomic(ledger.filesystem, folder / name, target)
        except Exception as error:  # filesystems raise exceptions of many classes
            raise ConfigError(
                f"can't write the model to the output {ledger.path}: "
                f"{type(error).__name__}: {error}"
            ) from error
    return _read_from_output(job, ledger, digest, job.output.storage_options)


def with_model_of_output(job: Job, ledger: Ledger) -> Job:
    """Return a job of which an output holds the model with the path that this has now."""
    _, inside, digest = job.model.path.partition(f"/{STORED_MODEL}/")
    if not inside or ledger.read(f"{STORED_MODEL}/{digest}/{_LAST}") is None:
        return job
    return _read_from_output(job, ledger, digest, ledger.store.options)


def _read_from_output(job: Job, ledger: Ledger, digest: str, options: Mapping[str, Any]) -> Job:
    stored = {
        "path": f"{ledger.path.rstrip('/')}/{STORED_MODEL}/{digest}",
        "storage_options": options,
    }
    return job.model_copy(update={"model": job.model.model_copy(update=stored)})


@cache
def _make_temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="pipemill-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def _hide_progress() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
