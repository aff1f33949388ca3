"""One run at a time per output: a lease that its holder renews, and that a dead one loses.

The leases of an output are numbered files, and the one of the highest number counts. To take
the output over is to create the next number, which one process alone can do. Nobody ever changes
another's lease, so a holder that was only asleep does no harm when it wakes up: it finds a higher
number than its own, and stops. No clocks are compared: a lease is alive if its file changes.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from pipemill.actors.output.layout import LEASE
from pipemill.actors.storage.filesystem import create_exclusive, open_filesystem, write_atomic

from pipemill.errors import ConfigError, RunError

from ..execution.supervisor import find_command_pid
from .lease_owner import LeaseOwner, current_owner, now

BEAT_S = 3.0
EXPIRY_S = 15.0  # of beats that did not come
_LOOK_S = 0.5

# Of this process, which lives on when a lease of its own could not be given back.
_held: set[str] = set()

T = TypeVar("T")


class Lease:
    """The right to write to an output, from `take` to the end of the `with` block."""

    def __init__(self, path: str, options: Mapping[str, Any], verb: str = "run") -> None:
        self.path, self.verb = path, verb
        self.filesystem, root = open_filesystem(path, options)
        self.folder = f"{root}/{LEASE}"
        self.holder: LeaseOwner | None = None
        self.lost: str | None = None
        self._number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def take(self) -> None:
        """Takes it, unless it is held already. Raises RunError that says who else holds it."""
        if self.holder is not None:
            return
        mine = current_owner(self.verb)
        _held.add(mine.id)
        try:
            while True:
                number, holder, data = latest(self.filesystem, self.folder)
                if number and not (holder and holder.released):
                    self._outlive(number, holder, data)
                if self._claim(number + 1, mine):
                    break
        except BaseException as error:
            _held.discard(mine.id)
            if isinstance(error, RunError) or not isinstance(error, Exception):
                raise
            raise ConfigError(
                f"can't write to the output {self.path}: {type(error).__name__}: {error}"
            ) from error
        self.holder = mine
        self._ended.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pipemill-lease")
        self._thread.start()

    def check(self) -> None:
        """Raises RunError if another run has taken the output over."""
        if self.lost is not None:
            raise RunError(
                f"this run showed no sign of life for {EXPIRY_S:g} s, and {self.path} was taken "
                f"over by {self.lost}"
            )

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as the lease is held."""
        for item in items:
            self.check()
            yield item

    def release(self) -> None:
        if self.holder is None:
            return
        self._ended.set()
        assert self._thread is not None
        self._thread.join(EXPIRY_S)
        try:
            if self.lost is None:
                self._write(replace(self.holder, released=True, seen=now()))
        except Exception:
            pass  # it expires
        _held.discard(self.holder.id)
        self.holder = None

    def _outlive(self, number: int, holder: LeaseOwner | None, data: bytes) -> None:
        """Returns when that lease is one of a dead holder. Raises RunError if its holder lives."""
        lives = holder.lives() if holder else None
        if lives and holder and holder.pid == find_command_pid():
            lives = holder.id in _held
        if lives is False:
            return
        until = time.monotonic() + EXPIRY_S
        if lives is None:
            _say(f"waiting up to {EXPIRY_S:g} s to see whether {holder or 'a run'} is alive")
        while lives is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
            found, other, changed = latest(self.filesystem, self.folder)
            if found != number or (other and other.released):
                return
            holder, lives = other, True if changed != data else None
        if lives:
            raise RunError(
                f"{self.path} is being written by {holder}. Wait until that ends or stop it, then "
                "run again; or name another output"
            )

    def _claim(self, number: int, mine: LeaseOwner) -> bool:
        """Creates the lease of that number; False if another was faster."""
        self._number = number
        # What exists may be ours: a store's answer can be lost on its way.
        with suppress(FileExistsError):
            create_exclusive(self.filesystem, self._file(number), mine.to_bytes())
        # A store without conditional writes lets two create it, and a slow process may have
        # looked long ago: who is there now?
        found, holder, _ = latest(self.filesystem, self.folder)
        if found != number or holder is None or holder.id != mine.id:
            return False
        for old in numbers(self.filesystem, self.folder):
            if old < number:
                _remove(self.filesystem, self._file(old))
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                assert self.holder is not None
                number, holder, _ = latest(self.filesystem, self.folder)
                if number != self._number or (holder and holder.id != self.holder.id):
                    self.lost = str(holder or "another run")
                    return
                self.holder = replace(self.holder, beat=self.holder.beat + 1, seen=now())
                self._write(self.holder)
            except Exception:
                continue  # the next beat may do better, and four may fail

    def _write(self, holder: LeaseOwner) -> None:
        write_atomic(self.filesystem, self._file(self._number), holder.to_bytes())

    def _file(self, number: int) -> str:
        return f"{self.folder}/{number:08d}.json"


def latest(filesystem: Any, folder: str) -> tuple[int, LeaseOwner | None, bytes]:
    """The lease that counts: its number (0: there is none), holder and bytes."""
    while found := max(numbers(filesystem, folder), default=0):
        try:
            data = filesystem.cat_file(f"{folder}/{found:08d}.json")
        except FileNotFoundError:
            continue  # removed by who took it over
        return found, LeaseOwner.from_bytes(data), data
    return 0, None, b""


def numbers(filesystem: Any, folder: str) -> list[int]:
    try:
        names = [name.rsplit("/", 1)[-1] for name in filesystem.ls(folder, detail=False)]
    except FileNotFoundError:
        return []
    return [int(n[:-5]) for n in names if n.endswith(".json") and n[:-5].isdigit()]


def _remove(filesystem: Any, path: str) -> None:
    with suppress(Exception):  # it counts for nothing
        filesystem.rm_file(path)


def _say(text: str) -> None:
    print(f"pipemill: {text}", file=sys.stderr, flush=True)
