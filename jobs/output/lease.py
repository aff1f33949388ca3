"""One run at a time per output: a lease that its owner renews, and loses when it dies.

The leases of an output are numbered files, and the highest number counts. A process takes over the
output by creating the next number, which only one process can do. No process changes the lease of
another one, so an owner that was only asleep does no harm when it wakes up: it finds a higher
number than its number, and stops. No clocks are compared: a lease is alive if its file changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from pipemill.actors.output.layout import ATTEMPTS, LEASE, list_lease_numbers, name_lease
from pipemill.actors.storage.backoff import is_forbidden
from pipemill.actors.storage.filesystem import create_exclusive
from pipemill.actors.storage.store import Store

from pipemill.errors import ConfigError, RunError, describe_error, explain_no_write

from ..execution.progress import log
from ..execution.supervisor import find_command_pid
from .lease_owner import LeaseOwner, identify_owner, now

BEAT_S = 3.0
EXPIRY_S = 15.0  # without a beat
_LOOK_S = 0.5

# The leases of this process, which goes on when one of them could not be released.
_held: set[str] = set()

T = TypeVar("T")


class Lease:
    """The right to write to an output, from `acquire` to the end of the `with` block.

    Raises ConfigError if the output can't be opened.
    """

    def __init__(self, store: Store, verb: str = "run") -> None:
        self.store, self.path, self.verb = store, store.path, verb
        _ = store.filesystem  # opened here
        self.holder: LeaseOwner | None = None
        self.lost: str | None = None
        self._number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    @property
    def number(self) -> int:
        """Return the number of the lease, which no other run of this output has."""
        return self._number

    @property
    def is_held(self) -> bool:
        return self.holder is not None

    def acquire(self) -> None:
        """Acquire the lease, unless it is held already. Raises RunError that names the owner."""
        if self.holder is not None:
            return
        self._check_deletes()
        mine = identify_owner(self.verb)
        _held.add(mine.id)
        try:
            while True:
                number, holder, data = find_latest(self.store)
                if number and not (holder and holder.released):
                    self._wait_for_expiry(number, holder, data)
                if self._claim(number + 1, mine):
                    break
        except BaseException as error:
            _held.discard(mine.id)
            if isinstance(error, RunError) or not isinstance(error, Exception):
                raise
            raise explain_no_write(self.path, error) from error
        self.holder = mine
        self._ended.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pipemill-lease")
        self._thread.start()

    def _check_deletes(self) -> None:
        """Raise ConfigError if files can't be deleted: no attempt at a split would ever end."""
        try:
            self.store.remove(f"{ATTEMPTS}/none")
        except Exception as error:
            if not is_forbidden(error):
                return  # there is none, or the store is away, which writing says better
            raise ConfigError(
                f"can't delete files in the output {self.path}: {describe_error(error)}; "
                "a run deletes some of its own files below _pipemill"
            ) from error

    def check(self) -> None:
        """Raise RunError if another run has taken over the output."""
        if self.lost is not None:
            raise RunError(
                f"this run showed no sign of life for {EXPIRY_S:g} s, and {self.path} was taken "
                f"over by {self.lost}"
            )

    def guard(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items as long as the lease is held. Raises RunError."""
        for item in items:
            self.check()
            yield item

    def release(self) -> None:
        if self.holder is None:
            return
        self._ended.set()
        if self._thread is not None and self._thread.is_alive():  # it may have been refused
            self._thread.join(EXPIRY_S)
        try:
            if self.lost is None:
                self._write(replace(self.holder, released=True, seen=now()))
        except Exception:
            pass  # it expires
        _held.discard(self.holder.id)
        self.holder = None

    def _wait_for_expiry(self, number: int, holder: LeaseOwner | None, data: bytes) -> None:
        """Return when the owner of that lease is dead. Raises RunError if the owner lives."""
        lives = holder.is_alive() if holder else None
        if lives and holder and holder.pid == find_command_pid():
            lives = holder.id in _held
        if lives is False:
            return
        until = time.monotonic() + EXPIRY_S
        if lives is None:
            who = holder or "a run"
            log(f"pipemill: waiting up to {EXPIRY_S:g} s to see whether {who} is alive")
        while lives is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
            found, other, changed = find_latest(self.store)
            if found != number or (other and other.released):
                return
            holder, lives = other, True if changed != data else None
        if lives:
            raise RunError(
                f"{self.path} is being written by {holder}. Wait until that ends or stop it, then "
                "run again; or name another output"
            )

    def _claim(self, number: int, mine: LeaseOwner) -> bool:
        """Create the lease with that number; return False if another process was faster."""
        self._number = number
        # The file that exists may be ours: the answer of a store can get lost.
        with suppress(FileExistsError):
            create_exclusive(
                self.store.filesystem, self.store.locate(name_lease(number)), mine.to_bytes()
            )
        # A store without conditional writes lets two processes create it, and a slow process may
        # have looked long ago: who is there now?
        found, holder, _ = find_latest(self.store)
        if found != number or holder is None or holder.id != mine.id:
            return False
        for old in _list_numbers(self.store):
            if old < number:
                with suppress(Exception):  # it no longer counts
                    self.store.remove(name_lease(old))
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                assert self.holder is not None
                number, holder, _ = find_latest(self.store)
                if number != self._number or (holder and holder.id != self.holder.id):
                    self.lost = str(holder or "another run")
                    return
                self.holder = replace(self.holder, beat=self.holder.beat + 1, seen=now())
                self._write(self.holder)
            except Exception:
                continue  # the next beat may do better, and four may fail

    def _write(self, holder: LeaseOwner) -> None:
        self.store.write(name_lease(self._number), holder.to_bytes())


def find_latest(store: Store) -> tuple[int, LeaseOwner | None, bytes]:
    """Return the lease that counts: its number (0 if the output has no lease), owner and bytes."""
    while found := max(_list_numbers(store), default=0):
        try:
            data = store.read(name_lease(found))
        except FileNotFoundError:
            continue  # removed by the process that took over
        return found, LeaseOwner.from_bytes(data), data
    return 0, None, b""


def _list_numbers(store: Store) -> list[int]:
    try:
        names = store.list_names(LEASE)
    except FileNotFoundError:
        return []
    return list_lease_numbers(names)
