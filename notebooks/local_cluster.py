"""A Ray cluster of one machine, with a dashboard and a token, to submit jobs to."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path


class LocalCluster:
    """A head and its processes, until `stop`.

    Attributes:
        address: Of its job API. The token is in this process's environment.
    """

    def __init__(self, cpus: int = 2) -> None:
        # Short, since it holds sockets, whose paths may have 107 bytes.
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        token, log = Path(self._folder, "token"), Path(self._folder, "log")
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        gcs, api, agent = _find_ports(3)
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
            f"--num-cpus={cpus}", f"--port={gcs}", f"--dashboard-port={api}",
            f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats",
        ]  # fmt: skip
        # Ray starts its workers by name: those of this Python.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # With its own folder no other run on this machine takes this Ray for its own.
        environment = {**os.environ, "PATH": path, "RAY_TMPDIR": self._folder}
        environment.pop("RAY_ADDRESS", None)
        with log.open("w") as file:
            self._head = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        atexit.register(self.stop)
        self.address = f"http://127.0.0.1:{api}"
        _wait_for(self.address, self._head, log)

    def stop(self) -> None:
        self._head.terminate()
        self._head.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _wait_for(address: str, head: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while head.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError:  # without the token it answers 401
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"Ray did not start:\n{log.read_text()}")


def _find_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
