"""`_pipemill/attempts/` in the output: a file for each split that a process is at work on."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ..monitoring.ray_connection import find_connected_ray
from ..output.layout import ATTEMPTS
from ..storage.backoff import retry_with_backoff
from ..storage.store import Store
from .attempts import AttemptError
from .process_identity import process_identity

_LONGEST_REASON = 2000


@dataclass(frozen=True)
class AttemptFiles:
    """Attempts as files: see the protocol `Attempts`.

    An attempt costs a PUT and a DELETE. A process lists the folder once; the read and write tasks
    of the staged placement do so for every split. Files are read only of suspected splits.

    Attributes:
        store: the output.
        run: the run within which deaths while loading a model count.
    """

    store: Store
    run: str

    def names(self) -> list[str]:
        folder = self.store.locate(ATTEMPTS)
        try:
            names = retry_with_backoff(lambda: self.store.list_names(ATTEMPTS), folder)
        except FileNotFoundError:
            return []
        # A file that is still being written has a name that starts with a dot.
        return sorted(name for name in names if not name.startswith("."))

    def begin(self, what: str) -> str:
        name = f"{what}.{uuid.uuid4().hex[:12]}"
        try:
            self.store.write(f"{ATTEMPTS}/{name}", json.dumps(_describe_owner()).encode())
        except Exception as error:  # filesystems raise various exceptions
            folder = f"{self.store.path}/{ATTEMPTS}"
            raise AttemptError(
                f"{folder} could not be written: {type(error).__name__}: {error}"
            ) from error
        return name

    def end(self, names: Iterable[str]) -> None:
        for name in names:
            path = f"{ATTEMPTS}/{name}"
            try:
                retry_with_backoff(partial(self.store.remove, path), path)
            except FileNotFoundError:
                continue

    def explain(self, name: str, reason: str) -> None:
        record = {**_describe_owner(), "reason": reason[:_LONGEST_REASON]}
        self.store.write(f"{ATTEMPTS}/{name}", json.dumps(record).encode())

    def reasons(self, names: Iterable[str]) -> list[str]:
        records = [self._read(name) for name in names]
        return [record["reason"] for record in records if record and "reason" in record]

    def dead_attempts(self, names: Iterable[str]) -> list[str]:
        dead = []
        for name in names:
            owner = self._read(name)
            if owner is None:
                continue
            if owner["process"] is None or owner["process"] != process_identity(owner["pid"]):
                dead.append(name)
        return dead

    def loader_key(self) -> str:
        ray = find_connected_ray()
        actor = None if ray is None else ray.get_runtime_context().get_actor_id()
        return f"loading.{self.run}.{actor or os.getpid()}"

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return what an attempt says; None if it ended since it was listed."""
        path = f"{ATTEMPTS}/{name}"
        try:
            record: dict[str, Any] = json.loads(
                retry_with_backoff(partial(self.store.read, path), path)
            )
        except FileNotFoundError:
            return None
        return record


def _describe_owner() -> dict[str, Any]:
    return {
        "process": process_identity(os.getpid()),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
