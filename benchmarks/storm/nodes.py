"""A cluster of Ray on this machine, whose raylets and head may be killed and replaced."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time

import psutil


class Nodes:
    """A head without CPUs, and raylets of one CPU each, all of them marked."""

    def __init__(self, mark: str, environment: dict[str, str], count: int) -> None:
        self.mark, self.environment, self.count = mark, environment, count
        self.lock = threading.Lock()
        self.raylets: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.head = self._start_ray("--head", f"--port={port}", "--num-cpus=0")
        self.raylets = [self._join() for _ in range(self.count)]

    def find_address(self) -> dict[str, str]:
        """Return the environment of a run that joins, once the cluster is there."""
        with self.lock:
            return {"RAY_ADDRESS": self.address}

    def replace(self, victim: str, rng: random.Random) -> int:
        """Kill a raylet and start another, or do so with the whole cluster."""
        with self.lock:
            if victim == "node":
                raylet = rng.choice(self.raylets)
                _kill_tree(raylet.pid)
                self.raylets.remove(raylet)
                self.raylets.append(self._join())
                return 1
            _kill_tree(self.head.pid)
            time.sleep(rng.uniform(0.5, 5))
            for raylet in self.raylets:
                _kill_tree(raylet.pid)
            self.start()
            return 1

    def _join(self) -> subprocess.Popen[bytes]:
        return self._start_ray(f"--address={self.address}", "--num-cpus=1")

    def _start_ray(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        command += ["--object-store-memory=200000000", "--include-dashboard=false"]
        started = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(8)  # a raylet that joins before the head listens gives up
        return started


def _kill_tree(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            one.kill()
    except psutil.Error:
        pass
