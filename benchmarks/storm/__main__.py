"""A job under random kills: of its driver, its actors, Ray's raylet, and the S3 server below it.

    python -m benchmarks.storm [--rows 100000] [--seconds 1800] [--seed 0] [--nodes 2]

With `--nodes`, the job runs on a cluster of so many raylets and a head without CPUs. One of them
dies, at once or after the notice of a spot machine, and another joins; or the whole cluster dies.

1 % of the rows are bad, and 5 end the process that reads them. Something dies every 5 to 25
seconds; when the run has ended, the same command runs again, until it says that it is done. Then
the output is verified, and every row looked for. Prints what was killed, and what came of it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.storm.nodes import Nodes
from tests.support import s3_server, tiny
from tests.support.processes import kill_marked, marked, marked_environment

KILLING, SHARDS = 5, 8
VICTIMS = ("driver", "actor", "raylet", "s3")
VICTIMS_ON_NODES = ("driver", "actor", "node", "drain", "s3", "head")
# What their command lines hold.
NAMES = {"driver": "pipemill.jobs.run", "actor": "MapWorker", "raylet": "raylet/raylet"}
HUNG_S = 900  # a run that takes longer, under all this, is counted as one that hangs


def texts(rows: int, rng: random.Random) -> list[str]:
    made = tiny.texts(rows, seed=1, longest=20)
    for n in rng.sample(range(rows), rows // 100):
        made[n] = "bad"
    for n in rng.sample([n for n in range(rows) if made[n] != "bad"], KILLING):
        made[n] = "kill"
    return made


class Storm(threading.Thread):
    """Kills something of the marked processes now and then, until `over` is set."""

    def __init__(
        self,
        mark: str,
        server: s3_server.Server,
        rng: random.Random,
        end: float,
        nodes: Nodes | None,
    ) -> None:
        super().__init__(daemon=True)
        self.mark, self.server, self.rng, self.end, self.nodes = mark, server, rng, end, nodes
        self.killed: Counter[str] = Counter()
        self.over = threading.Event()
        self.started = time.monotonic()
        # MiB of the largest driver and of the largest actor, in every five minutes.
        self.peaks: dict[str, dict[int, int]] = {"driver": {}, "actor": {}}

    def run(self) -> None:
        next_kill = time.monotonic() + 20
        while not self.over.wait(0.5):
            self._weigh()
            if next_kill < time.monotonic() < self.end:
                self._kill(self.rng.choice(VICTIMS_ON_NODES if self.nodes else VICTIMS))
                next_kill = time.monotonic() + self.rng.uniform(5, 25)

    def _weigh(self) -> None:
        now = int((time.monotonic() - self.started) // 300)
        for who, peaks in self.peaks.items():
            for process in self._named(NAMES[who]):
                try:
                    size = process.memory_info().rss // 2**20
                except psutil.Error:
                    continue
                peaks[now] = max(peaks.get(now, 0), size)

    def _kill(self, victim: str) -> None:
        if victim == "s3":
            self.server.stop()
            time.sleep(self.rng.uniform(0.5, 8))
            self.server.start()
            self.killed[victim] += 1
            return
        if victim in ("node", "drain", "head"):
            assert self.nodes is not None
            self.nodes.replace(victim, self.rng)
            self.killed[victim] += 1
            return
        found = self._named(NAMES[victim])
        if found:
            try:
                self.rng.choice(found).kill()
                self.killed[victim] += 1
            except psutil.Error:
                pass

    def _named(self, name: str) -> list[psutil.Process]:
        found = []
        for process in marked(self.mark):
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        server = s3_server.Server(Path(folder, "s3"))
        server.start()
        os.environ.update(server.environment())
        try:
            rows = texts(options.rows, rng)
            told = weather(Path(folder), server, rows, rng, options.seconds, options.nodes)
        finally:
            server.stop()
    print(json.dumps(told, indent=1))


def end_run(mark: str, nodes: Nodes | None) -> None:
    """Kill what a run left behind; of a cluster that others share, only its driver."""
    if nodes is None:
        kill_marked(mark)
        return
    for process in marked(mark):
        try:
            if NAMES["driver"] in " ".join(process.cmdline()):
                process.kill()
        except psutil.Error:
            continue


def weather(
    folder: Path,
    server: s3_server.Server,
    rows: list[str],
    rng: random.Random,
    seconds: float,
    count: int,
) -> dict[str, object]:
    from pipemill.actors.storage.filesystem import open_filesystem
    from pipemill.jobs.verify import verify

    model = tiny.save(folder / "model", "ForSequenceClassification", ["a", "b"])
    filesystem, _ = open_filesystem("s3://", {})
    filesystem.mkdir("storm")
    for i in range(SHARDS):
        first, last = i * len(rows) // SHARDS, (i + 1) * len(rows) // SHARDS
        sink = io.BytesIO()
        pq.write_table(pa.table({"n": range(first, last), "text": rows[first:last]}), sink)
        filesystem.pipe_file(f"storm/in/{i}.parquet", sink.getvalue())
    mark, environment = marked_environment()
    environment["RAY_AUTH_MODE"] = "disabled"
    command = [
        sys.executable, "-m", "pipemill.jobs.run", "--task", "text-classification",
        "--model", str(model), "--input", "s3://storm/in", "--output", "s3://storm/out",
        "--set", "pipeline_class=benchmarks.storm.storm_pipeline:StormPipeline",
        "--set", "output.rows_per_part=500",
        "--param", "truncation=true",
    ]  # fmt: skip
    started = time.monotonic()
    nodes = Nodes(environment, count) if count else None
    storm = Storm(mark, server, rng, started + seconds, nodes)
    storm.start()
    ends: Counter[str] = Counter()
    while True:
        try:
            done = subprocess.run(
                command,
                env=environment | (nodes.find_address() if nodes else {}),
                capture_output=True,
                text=True,
                timeout=HUNG_S,
            )
        except subprocess.TimeoutExpired:
            ends["hung"] += 1
            end_run(mark, nodes)
            continue
        ends[str(done.returncode)] += 1
        if done.returncode == 0:
            break
        if done.returncode > 0:
            print(done.stderr[-600:], file=sys.stderr)
        end_run(mark, nodes)
    storm.over.set()
    storm.join()
    kill_marked(mark)
    found = verify("s3://storm/out")
    parts = sorted(p for p in filesystem.ls("storm/out", detail=False) if "/part-" in p)
    answered = [
        n
        for part in parts
        for n in pq.read_table(io.BytesIO(filesystem.cat_file(part)))["n"].to_pylist()
    ]
    wanted = [n for n, text in enumerate(rows) if text not in ("bad", "kill")]
    report = json.loads(done.stdout.splitlines()[-1])
    return {
        "rows": report["rows"],
        "done": report["done"],
        "dead": report["dead"],
        "answered rows are those that are good, each once and in order": answered == wanted,
        "verify": found.ok,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "killed": dict(storm.killed),
        "runs by exit status": dict(ends),
        "most memory in every 5 minutes, MiB": {
            who: list(peaks.values()) for who, peaks in storm.peaks.items()
        },
    }


if __name__ == "__main__":
    main()
