"""Who holds an output, and whether that process is still there."""

from __future__ import annotations

import getpass
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..execution.supervisor import find_command_pid


@dataclass(frozen=True, kw_only=True)
class LeaseOwner:
    """A process that has the right to write to an output.

    id: random, so that no two are equal. machine: equal where process numbers mean the same.
    born: tells the process from a later one of the same number; "" where that can't be known.
    beat: raised while it lives. seen: when it last was, by its own clock.
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
        """None for what was only half written when its writer was killed."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    def lives(self) -> bool | None:
        """Whether the process is there; None if it is on another machine."""
        if self.machine != _machine() or os.name != "posix":
            return None
        born = _born(self.pid)
        return born is not None and (born == self.born or "" in (born, self.born))

    def __str__(self) -> str:
        return (
            f"`pipemill {self.verb}` of {self.user} on {self.host} (process {self.pid}, "
            f"since {self.since})"
        )

    def summary(self) -> dict[str, Any]:
        """What a user may want of it."""
        names = ("verb", "user", "host", "pid", "since", "seen")
        return {name: getattr(self, name) for name in names}


def current_owner(verb: str) -> LeaseOwner:
    pid = find_command_pid()
    return LeaseOwner(
        id=uuid.uuid4().hex,
        verb=verb,
        user=_user(),
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        born=_born(pid) or "",
        since=now(),
        seen=now(),
    )


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        return str(os.getuid())


@lru_cache(maxsize=1)
def _machine() -> str:
    """Containers of one host, and hosts of one name, count their processes apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _born(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has been killed, and only waits for its parent to ask.
    return None if fields[0] in "ZX" else fields[19]
