"""The small files of a model: read from its folder, or from the Hub, before it is loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

_TOKENIZER = "tokenizer.json"
# Files of a model's folder that hold a JSON object.
_OBJECTS = {
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    _TOKENIZER,
}
# Names of other files that a tokenizer is made of.
_OF_TOKENIZER = re.compile(r"vocab|merges|token|tekken|\.(model|spm|tiktoken)$")

# Configurations, weights, vocabularies and chat templates.
_DOWNLOADED = (
    "*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.spm", "*.tiktoken", "*.codes",
)  # fmt: skip


class FolderSource(Protocol):
    """Makes a model's folder on any machine: fetches it from a URL, or merges an adapter."""

    @property
    def url(self) -> str:
        """Return the model's name in messages."""

    def fetch(self) -> Path:
        """Make the folder, unless it is there, and return it."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model, found by their names.

    Attributes:
        path: a folder, or a name on the Hub.
        revision: of a name on the Hub, the commit.
        root: the folder in which `path` lies, where the model has other parts beside it: then
            files are named from there.
        remote: what makes the folder on each machine; None for one that all machines see.
    """

    path: str
    revision: str | None = None
    root: str | None = None
    remote: FolderSource | None = None

    def here(self) -> ModelFiles:
        """Return the model with its folder on this machine, which is fetched if it is not there."""
        if self.remote is None:
            return self
        inner = os.path.relpath(self.path, self.root or self.path)
        root = self.remote.fetch()
        return replace(self, path=os.path.normpath(root / inner), root=str(root))

    def download(self, pickled: bool = False) -> Path:
        """Return a folder on this machine with all files but weights that may hold code.

        pickled: whether these are wanted, too.
        """
        if Path(self.path).is_dir():
            return Path(self.path)
        from huggingface_hub import snapshot_download

        wanted = [*_DOWNLOADED, *(["*.bin"] if pickled else [])]
        return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=wanted))

    def settings_folder(self) -> Path:
        """Return a folder on this machine with the model's files of settings, as far as it can."""
        if not Path(self.path).is_dir():
            for name in sorted(_OBJECTS - {_TOKENIZER}):
                with suppress(OSError):
                    self.find(name)
        return self.folder() or Path(self.path)

    def find(self, name: str) -> Path | None:
        """Return the path of a file on this machine; None if the model does not have it.

        Raises:
            OSError: the Hub does not answer what was asked.
        """
        folder = Path(self.root or self.path)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            RemoteEntryNotFoundError,
        )

        try:
            return Path(hf_hub_download(self.path, name, revision=self.revision))
        except RemoteEntryNotFoundError:
            return None
        except (EntryNotFoundError, HfHubHTTPError) as error:
            if find_status(error) is not None and self.is_unknown(name):
                raise  # it may be there: without it the model would be used in another way
            return None

    def find_here(self, name: str) -> Path | None:
        """Return the path of a file without asking the Hub; None for one that is not here."""
        folder = Path(self.root or self.path)
        if folder.is_dir():
            return self.find(name)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.path, name, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None

    def folder(self) -> Path | None:
        """Return where config.json and the weights are; None for a Hub name that is not here."""
        if Path(self.path).is_dir():
            return Path(self.path)
        config = self.find_here("config.json")
        return None if config is None else config.parent

    def count_weight_bytes(self) -> int | None:
        """Return the size of the weights in bytes; None if it is unknown."""
        folder = self.folder()
        files = () if folder is None else filter(Path.is_file, folder.iterdir())
        found = _sum_weights({file.name: file.stat().st_size for file in files})
        # Of a model on the Hub, this machine may have the small files alone.
        if found is None and not Path(self.path).is_dir():
            from huggingface_hub import HfApi

            with suppress(Exception):  # the Hub can't be reached: the worker will say so
                info = HfApi().model_info(self.path, revision=self.revision, files_metadata=True)
                found = _sum_weights({one.rfilename: one.size or 0 for one in info.siblings or ()})
        return found

    def find_damage(self, names: str = "*.json") -> str | None:
        """Return which of the JSON files that transformers reads is damaged; None if none is."""
        folder = self.folder()
        for file in sorted(folder.glob(names)) if folder is not None else ():
            if (fault := _find_fault(file)) is not None:
                return f"{file} {fault}: copy or download it again"
        return None

    def describe_tokenizer_files(self) -> str | None:
        """Return which files no tokenizer can be made of; None if others may be on the Hub."""
        if _TOKENIZER in self or self.is_unknown(_TOKENIZER):
            return None
        found = ", ".join(sorted(filter(_OF_TOKENIZER.search, _list_names(self)))) or "nothing"
        return (
            f"{self.path} has no tokenizer.json, and transformers can't make a tokenizer of what "
            f"is there ({found}): copy the tokenizer's files there (tokenizer.save_pretrained), or "
            "pip install sentencepiece tiktoken if its files need them"
        )

    def is_unknown(self, name: str) -> bool:
        """Tell whether the model may have a file on the Hub, which could not be asked."""
        if Path(self.path).is_dir():
            return False
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(self.path, name, revision=self.revision) is None

    def json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file holds; {} if there is no such file, or if it can't be read.

        transformers, which reads it again, says what is wrong with it.
        """
        try:
            file = self._find_listed(name)
            found = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def first_byte(self, name: str) -> bytes:
        """Return the byte that a file begins with; b"" if there is no such file."""
        with suppress(OSError, ValueError):
            if (file := self._find_listed(name)) is not None:
                with file.open("rb") as opened:
                    return opened.read(1)
        return b""

    def __contains__(self, name: str) -> bool:
        return name in _list_names(self)

    def _find_listed(self, name: str) -> Path | None:
        # One listing, and not one request for each file that is missing.
        return self.find(name) if name in self else None


def find_status(error: BaseException) -> int | None:
    """Return the HTTP status of the Hub's answer that a library's error is about, if any is."""
    from huggingface_hub.errors import HfHubHTTPError

    cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _find_fault(file: Path) -> str | None:
    """Return what is wrong with a JSON file; None if nothing is."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"is not JSON ({error})"
    if file.name in _OBJECTS and not isinstance(content, dict):
        return "is not a JSON object"
    return _find_tokenizer_fault(file, content) if file.name == _TOKENIZER else None


def _find_tokenizer_fault(file: Path, content: Mapping[str, Any]) -> str | None:
    """Return why tokenizer.json is no tokenizer; None if its library can read it."""
    import tokenizers

    if "model" not in content:
        return 'is not a tokenizer: it has no "model"'
    try:
        tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:
        version = tokenizers.__version__
        return f"can't be read by tokenizers {version}, which may be too old for it ({error})"
    return None


@lru_cache(maxsize=8)
def _list_names(files: ModelFiles) -> frozenset[str]:
    """Return the names of a model's files.

    A machine that can't ask the Hub lists its cache: the model is loaded from there, too.
    """
    folder = Path(files.path)
    if not folder.is_dir():
        from huggingface_hub import list_repo_files

        with suppress(OSError, ValueError):
            return frozenset(list_repo_files(files.path, revision=files.revision))
        here = files.folder()
        if here is None:
            return frozenset()
        folder = here
    with suppress(OSError):
        return frozenset(entry.name for entry in folder.iterdir())
    return frozenset()


def _sum_weights(files: Mapping[str, int]) -> int | None:
    """Return the bytes of those files that hold weights; None without any. files: by name."""
    for suffix in (".safetensors", ".bin"):
        sizes = [size for name, size in files.items() if name.endswith(suffix) and "/" not in name]
        if sizes:
            return sum(sizes)
    return None
