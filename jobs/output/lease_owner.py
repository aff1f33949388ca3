"""Who holds an output, and whether that process is still alive."""

from __future__ import annotations

import getpass
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pipemill.actors.faults.process_identity import boot_id, process_start

from ..execution.supervisor import find_command_pid


@dataclass(frozen=True, kw_only=True)
class LeaseOwner:
    """A process that has the right to write to an output.

    id: Random, so that no two are equal.
    machine: Equal where process numbers mean the same.
    born: Tells the process from a later one with the same number; "" where that can't be known.
    beat: Is raised while the process lives.
    seen: When it was last raised, by the clock of that machine.
    """

    id: str
    verb: str
    user: str
    host: str
    machine: str
    pid: int
    born: str
    since: str
    seen: str
    beat: int = 0
    released: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LeaseOwner | None:
        """Return an owner; None for a file that its writer left half written when it was killed."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    def is_alive(self) -> bool | None:
        """Return whether the process is alive; None if it is on another machine."""
        if self.machine != _identify_machine():
            return None
        start = process_start(self.pid)
        return start is not None and (start == self.born or "" in (start, self.born))

    def __str__(self) -> str:
        return (
            f"`pipemill {self.verb}` of {self.user} on {self.host} (process {self.pid}, "
            f"since {self.since})"
        )

    def summary(self) -> dict[str, Any]:
        """Return what a user may want to know."""
        names = ("verb", "user", "host", "pid", "since", "seen")
        return {name: getattr(self, name) for name in names}


def identify_owner(verb: str) -> LeaseOwner:
    """Return an owner for this process."""
    pid = find_command_pid()
    return LeaseOwner(
        id=uuid.uuid4().hex,
        verb=verb,
        user=_find_user(),
        host=socket.gethostname(),
        machine=_identify_machine(),
        pid=pid,
        born=process_start(pid) or "",
        since=now(),
        seen=now(),
    )


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        return str(os.getuid())


@lru_cache(maxsize=1)
def _identify_machine() -> str:
    """Return what differs where process numbers differ: containers of one host count their own,
    and hosts may have the same name."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    if boot_id() and namespace:
        return f"{boot_id()} {namespace}"
    return f"{socket.gethostname()} {uuid.getnode()}"
