"""Find the running Ray that a session joins, and see that it answers, without importing Ray."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pipemill.actors.monitoring.ray_connection import find_connected_ray

from pipemill.errors import ConfigError

# How an HTTP/2 client begins (RFC 9113, section 3.4), with an empty SETTINGS frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEADER_BYTES = 9
_SETTINGS = 4
# How long a configured head may take to answer, and one on this machine.
_CONFIGURED_S, _HERE_S = 30.0, 5.0


def find_ray(cluster: str) -> str:
    """Return the address of the running Ray that a new session would join, or "".

    Args:
        cluster: "local" joins none.
    """
    if cluster == "local":
        return ""
    return read_configured_address() or find_ray_here()


def joins_ray(cluster: str) -> bool:
    """Return whether a session joins a running Ray instead of starting one."""
    return find_connected_ray() is not None or bool(find_ray(cluster))


def joins_other_machines(cluster: str) -> bool:
    """Return whether a session uses a Ray that may have other machines than this one."""
    ray = find_connected_ray()
    if ray is None:
        return joins_ray(cluster)
    here = socket.gethostname()
    nodes = ray.nodes()
    return any(node["NodeManagerHostname"] != here for node in nodes if node["Alive"])


def read_configured_address() -> str:
    """Return the address in RAY_ADDRESS, or "" if it names no Ray to join."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def find_ray_here() -> str:
    """Return the address that `ray start` left on this machine, or "" if no Ray answers there.

    A head that was killed leaves one, too.
    """
    address = _read_left_address()
    try:
        _check_answer(address, _HERE_S)
    except (OSError, ValueError):
        return ""
    return address


def check_configured_address(address: str) -> None:
    """Check that a Ray answers at an address: `ray.init` would wait for minutes, or forever.

    Args:
        address: As `read_configured_address` returns it; "" needs no check.

    Raises:
        ConfigError: for an address at which no Ray answers.
    """
    from_file = address == "auto"
    if from_file:
        address = _read_left_address()
    if not address.rpartition(":")[2].isdigit():
        return  # Ray finds it itself
    try:
        _check_answer(address, _CONFIGURED_S)
    except OSError as error:
        source = f"RAY_ADDRESS=auto, {_find_address_file()}" if from_file else "RAY_ADDRESS"
        raise ConfigError(
            f"no Ray answers at {address} ({source}: {error}): start a cluster there, or unset "
            "RAY_ADDRESS to run on this machine"
        ) from None


def _check_answer(address: str, timeout: float) -> None:
    """Raise OSError if no gRPC server answers at HOST:PORT, where another one may listen by now."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        connection.sendall(_PREFACE)
        header = b""
        while len(header) < _FRAME_HEADER_BYTES:
            received = connection.recv(_FRAME_HEADER_BYTES - len(header))
            if not received:
                break
            header += received
    if header[3:4] != bytes([_SETTINGS]):
        raise OSError("another server listens there")


def _read_left_address() -> str:
    with suppress(OSError, ValueError):
        return _find_address_file().read_text().strip()
    return ""


def _find_address_file() -> Path:
    """Return the file in which `ray start` leaves the head's address."""
    on_linux = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else None
    default = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()
    return Path(os.environ.get("RAY_TMPDIR", on_linux or default), "ray", "ray_current_cluster")
