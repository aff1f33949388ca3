"""`_pipemill/attempts/` in the output: a file for each split that a process is at work on."""

from __future__ import annotations

import json
import os
import socket
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ..output.layout import ATTEMPTS
from ..storage.backoff import retry_with_backoff
from ..storage.filesystem import open_filesystem, write_atomic
from .attempts import AttemptError
from .process_identity import process_identity


@dataclass(frozen=True)
class AttemptFiles:
    """Costs a PUT and a DELETE per attempt, and a LIST per process (of the staged placement's
    read and write tasks per split); reads a file only of a split that is suspected.

    run: of which run the loading of models is counted.
    """

    path: str
    options: Mapping[str, Any]
    run: str

    def names(self) -> list[str]:
        filesystem, root = self._open()
        try:
            found = retry_with_backoff(lambda: filesystem.ls(root, detail=False), root)
        except FileNotFoundError:
            return []
        names = (name.rstrip("/").rsplit("/", 1)[-1] for name in found)
        # With a dot begin those that are being written.
        return sorted(name for name in names if not name.startswith("."))

    def begin(self, what: str) -> str:
        filesystem, root = self._open()
        name = f"{what}.{uuid.uuid4().hex[:12]}"
        who = {
            "process": process_identity(os.getpid()),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        try:
            write_atomic(filesystem, f"{root}/{name}", json.dumps(who).encode())
        except Exception as error:  # every filesystem has exceptions of its own
            raise AttemptError(
                f"{self.path}/{ATTEMPTS} could not be written: {type(error).__name__}: {error}"
            ) from error
        return name

    def end(self, names: Iterable[str]) -> None:
        filesystem, root = self._open()
        for path in (f"{root}/{name}" for name in names):
            try:
                retry_with_backoff(partial(filesystem.rm_file, path), path)
            except FileNotFoundError:
                continue

    def gone(self, names: Iterable[str]) -> list[str]:
        filesystem, root = self._open()
        found = []
        for name in names:
            try:
                path = f"{root}/{name}"
                who = json.loads(retry_with_backoff(partial(filesystem.cat_file, path), path))
            except FileNotFoundError:  # it has ended since it was listed
                continue
            if who["process"] is None or who["process"] != process_identity(who["pid"]):
                found.append(name)
        return found

    def loader(self) -> str:
        ray = sys.modules.get("ray")
        actor = ray.get_runtime_context().get_actor_id() if ray and ray.is_initialized() else None
        return f"loading.{self.run}.{actor or os.getpid()}"

    def _open(self) -> tuple[Any, str]:
        filesystem, root = open_filesystem(self.path, self.options)
        return filesystem, f"{root}/{ATTEMPTS}"
