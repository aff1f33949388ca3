"""Servers that several files talk to, each started once: an S3 store and the head of a Ray."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import MARK, kill_marked, marked_environment
from tests.support.s3_server import Server, is_installed
from tests.support.shared import SHARED

# The head inherits nothing else: credentials, above all.
_KEPT = ("PATH", "HOME", "PYTHONPATH", "LANG", MARK)


@dataclass(frozen=True)
class RayHead:
    """address: of the cluster. api: URL of its job API. environment: what a driver joins it by."""

    address: str
    api: str
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def object_store(tmp_path_factory) -> Server:
    if not is_installed():
        pytest.skip("`make test` installs the server")
    server = Server(tmp_path_factory.mktemp("s3"))
    SHARED.callback(server.stop)
    server.start()
    return server


@pytest.fixture(scope="session")
def ray_head() -> RayHead:
    """A Ray of two CPUs that asks for a token, as one on other machines does."""
    # Not Ray's usual folder, where the next `ray.init` would look for this head. Short: it holds
    # sockets, whose paths may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    Path(folder, "token").write_text(secrets.token_hex(32))
    mark, environment = marked_environment()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{folder}/token"}
    bare = {name: environment[name] for name in _KEPT if name in environment} | token
    bare |= {"RAY_TMPDIR": folder, "AWS_EC2_METADATA_DISABLED": "true"}
    gcs, api, agent = _free_ports(3)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=2",
        f"--port={gcs}", f"--dashboard-port={api}", f"--dashboard-agent-listen-port={agent}",
        "--disable-usage-stats",
    ]  # fmt: skip
    SHARED.callback(shutil.rmtree, folder, ignore_errors=True)
    SHARED.callback(kill_marked, mark)
    # On a busy machine a raylet may need more than the half minute that Ray gives it.
    for _ in range(3):
        done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=240)
        if done.returncode == 0:
            break
        kill_marked(mark)
    assert done.returncode == 0, done.stdout + done.stderr
    return RayHead(
        address=Path(folder, "ray/ray_current_cluster").read_text().strip(),
        api=f"http://127.0.0.1:{api}",
        folder=Path(folder),
        environment={MARK: mark, "RAY_TMPDIR": folder, **token},
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
