"""A cluster of Ray on this machine, whose raylets and head may be killed and replaced."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass

import psutil

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
HEAD = ["--head", "--num-cpus=0", "--include-dashboard=false"]
NOTICE_S = 15  # what a machine that will be taken away has left


@dataclass(frozen=True)
class Raylet:
    """A raylet. id: its node's, in Ray."""

    process: subprocess.Popen[bytes]
    id: str

    def kill(self) -> None:
        try:
            process = psutil.Process(self.process.pid)
            for one in [*process.children(recursive=True), process]:
                one.kill()
        except psutil.Error:
            pass
        self.process.wait()


class Nodes:
    """A head without CPUs, and raylets of one CPU each, all in one environment."""

    def __init__(self, environment: dict[str, str], count: int) -> None:
        self.environment, self.count = environment, count
        self.lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.head = self._start_ray(*HEAD, f"--port={port}")
        while not _listens(port):
            time.sleep(1)
        self.raylets = [self._join() for _ in range(self.count)]

    def find_address(self) -> dict[str, str]:
        """Return the environment of a run that joins, once the cluster is there."""
        with self.lock:
            return {"RAY_ADDRESS": self.address}

    def replace(self, victim: str, rng: random.Random) -> None:
        """Kill a node, at once or after the notice of a spot machine, or the whole cluster.

        Another takes its place.
        """
        with self.lock:
            if victim == "head":
                for raylet in [self.head, *self.raylets]:
                    raylet.kill()
                    time.sleep(rng.uniform(0, 3))
                self._start()
                return
            raylet = rng.choice(self.raylets)
            if victim == "drain":
                self._drain(raylet)
                time.sleep(NOTICE_S)
            raylet.kill()
            self.raylets.remove(raylet)
            self.raylets.append(self._join())

    def _drain(self, raylet: Raylet) -> None:
        command = [*RAY, "drain-node", f"--address={self.address}", f"--node-id={raylet.id}"]
        command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        command += [f"--deadline-remaining-seconds={NOTICE_S}"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def _join(self) -> Raylet:
        while True:
            raylet = self._start_ray(f"--address={self.address}", "--num-cpus=1")
            time.sleep(8)
            if raylet.process.poll() is None:
                return raylet

    def _start_ray(self, *options: str) -> Raylet:
        command = [*RAY, "start", "--block", "--object-store-memory=200000000", *options]
        id = f"{uuid.uuid4().hex}{uuid.uuid4().hex}"[:56]
        process = subprocess.Popen(
            command,
            env=self.environment | {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": id},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return Raylet(process, id)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
