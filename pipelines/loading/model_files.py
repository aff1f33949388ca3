"""The small files of a model: read from its folder, or from the Hub, before it is loaded."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    path: a folder, or a name on the Hub; revision: of the latter, the commit.
    """

    path: str
    revision: str | None = None

    def json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file holds; nothing where there is none, or where it can't be read.

        transformers, which reads it again, says what is wrong with it.
        """
        file = self._local(name)
        if file is None:
            return {}
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def first_byte(self, name: str) -> bytes:
        """Return the byte a file begins with; none where there is no such file."""
        file = self._local(name)
        with suppress(OSError):
            if file is not None:
                with file.open("rb") as opened:
                    return opened.read(1)
        return b""

    def __contains__(self, name: str) -> bool:
        return name in _names(self.path, self.revision)

    def _local(self, name: str) -> Path | None:
        if name not in self:
            return None
        if Path(self.path).is_dir():
            return Path(self.path) / name
        from huggingface_hub import hf_hub_download

        with suppress(OSError, ValueError):
            return Path(hf_hub_download(self.path, name, revision=self.revision))
        return None


@lru_cache(maxsize=8)
def _names(path: str, revision: str | None) -> frozenset[str]:
    """Return the names of the files in a folder, on the Hub, or in the cache of a machine without
    a way to the Hub, which then loads from there, too."""
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import list_repo_files, try_to_load_from_cache

        with suppress(OSError, ValueError):
            return frozenset(list_repo_files(path, revision=revision))
        config = try_to_load_from_cache(path, "config.json", revision=revision)
        if not isinstance(config, str):
            return frozenset()
        folder = Path(config).parent
    with suppress(OSError):
        return frozenset(entry.name for entry in folder.iterdir())
    return frozenset()
