"""A real S3 server on loopback: OpenStack Swift with its s3api, one replica in one folder.

`make test` installs it beside the project (`.s3/`): its libraries are no business of pipemill's.
"""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

BIN = Path(__file__).parent.parent.parent / ".s3/bin"
KEY, SECRET = "test:tester", "verysecret-0451"
PAGE = 30  # the most objects of a listing; of AWS 1,000
_PATIENCE_S = 60
_SERVERS = ("account", "container", "object", "proxy")

_STORAGE = """
[DEFAULT]
devices = {root}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {root}
log_level = CRITICAL
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {root}
log_level = CRITICAL
[pipeline:main]
pipeline = catch_errors cache listing_formats bulk s3api tempauth copy slo dlo symlink versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
dns_compliant_bucket_names = true
check_bucket_owner = false
min_segment_size = 5242880
allow_no_owner = true
max_bucket_listing = {page}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
min_segment_size = 1
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
[filter:copy]
use = egg:swift#copy
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""  # noqa: E501

# What `swift-ring-builder` does in nine processes.
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for ring in sys.argv[1:]:
    kind, port = ring.split("=")
    builder = RingBuilder(6, 1, 0)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1"}
    builder.add_dev({"id": 0, "weight": 1.0, **device})
    builder.rebalance()
    builder.get_ring().save(f"{kind}.ring.gz")
"""


class _Cache(socketserver.StreamRequestHandler):
    """What Swift asks of memcached; without one it looks for account and bucket at each request."""

    # An answer of two writes would take 40 ms: the second waits until the first is acknowledged.
    disable_nagle_algorithm = True
    kept: ClassVar[dict[bytes, tuple[bytes, bytes]]] = {}

    def handle(self) -> None:
        while words := self.rfile.readline().split():
            command, key = words[:2]
            if command == b"set":
                flags, _, size = words[2:5]
                self.kept[key] = (flags, self.rfile.read(int(size)))
                self.rfile.readline()
                self.wfile.write(b"STORED\r\n")
            elif command == b"get":
                if found := self.kept.get(key):
                    flags, data = found
                    head = b"VALUE %b %b %d\r\n" % (key, flags, len(data))
                    self.wfile.write(head + data + b"\r\n")
                self.wfile.write(b"END\r\n")
            elif command == b"delete":
                self.kept.pop(key, None)
                self.wfile.write(b"DELETED\r\n")
            else:
                self.wfile.write(b"ERROR\r\n")


class Server:
    """It is up after `start`, away after `go_away` and `stop`, and keeps what it holds."""

    def __init__(self, root: Path) -> None:
        self.root, self.running = root, []
        (root / "devices/d1").mkdir(parents=True)
        (root / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
            "[swift-constraints]\nmax_file_size = 5368709122\n"
        )
        ports = _free_ports(4)
        self._cache = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Cache)
        self._cache.daemon_threads = True
        threading.Thread(target=self._cache.serve_forever, daemon=True).start()
        self.ports = dict(zip(_SERVERS, ports, strict=True))
        said = {
            "root": root,
            "user": _user(),
            "secret": SECRET,
            "memcached": self._cache.server_address[1],
            "page": PAGE,
        }
        for kind, port in self.ports.items():
            text = _PROXY if kind == "proxy" else _STORAGE
            (root / f"{kind}.conf").write_text(text.format(kind=kind, port=port, **said))
        rings = [f"{kind}={port}" for kind, port in self.ports.items() if kind != "proxy"]
        subprocess.run([BIN / "python", "-c", _RINGS, *rings], cwd=root, check=True)
        self.endpoint = f"http://127.0.0.1:{self.ports['proxy']}"

    def environment(self) -> dict[str, str]:
        """What clients find it by."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start what does not run."""
        until = time.monotonic() + _PATIENCE_S
        for kind in _SERVERS[len(self.running) :]:
            if kind == "proxy":  # before the others are up it would say that no bucket exists
                _wait_for(self._stores_listen, until)
            self.running.append(
                subprocess.Popen(
                    [BIN / f"swift-{kind}-server", self.root / f"{kind}.conf"],
                    env={**os.environ, "HOME": str(self.root)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        _wait_for(self._answers, until)

    def go_away(self) -> None:
        """Stop the proxy: nobody answers any more, and the next start takes less time."""
        process = self.running.pop()
        process.kill()
        process.wait()

    def stop(self) -> None:
        while self.running:  # a proxy alone would say that no bucket exists
            self.go_away()

    def _stores_listen(self) -> bool:
        return all(_listens(port) for kind, port in self.ports.items() if kind != "proxy")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False
        return True


def _wait_for(up: Callable[[], bool], until: float) -> None:
    while not up():
        assert time.monotonic() < until, "the S3 server did not start"
        time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def is_installed() -> bool:
    return sys.platform == "linux" and (BIN / "swift-proxy-server").exists()


def _user() -> str:
    import getpass

    return getpass.getuser()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
