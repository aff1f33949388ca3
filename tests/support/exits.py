"""Take every way out of a run many times: `python -m tests.support.exits 30`.

Each run is the command line over Ray with a task that needs no model. It must end with its exit
status, one message of pipemill, and nothing of Ray or Python on the terminal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from pipemill.jobs.output.lease_owner import identify_owner

from tests.support import light
from tests.support.processes import kill_marked, marked, marked_environment

PATIENCE_S = 240
ROWS, PER_PART = 400, 4


@dataclass(frozen=True)
class Way:
    """A way out.

    texts: the input's rows. change: what happens to the run meanwhile.
    """

    status: int
    says: str
    texts: tuple[str | None, ...] = tuple(f"text {n}" for n in range(ROWS))
    output: dict[str, Any] = field(default_factory=dict)
    actors: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    change: Callable[[Run], None] | None = None


class Run:
    """The command in a separate process, with all processes that descend from it."""

    def __init__(self, way: Way, folder: Path) -> None:
        self.way, self.folder, self.out = way, folder, folder / "out"
        wanted = light.job(
            folder,
            list(way.texts),
            PER_PART,
            output=way.output,
            actors={"placement": "fused", "cluster": "local", **way.actors},
        )
        (folder / "job.yaml").write_text(json.dumps(wanted))
        self.mark, environment = marked_environment()
        self.files = [(folder / name).open("w+") for name in ("stdout", "stderr")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.light_over_ray", "run", str(folder / "job.yaml")],
            env={**environment, "LIGHT_SLOW": "0.005", **way.environment},
            stdout=self.files[0],
            stderr=self.files[1],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_parts(self, count: int = 3) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(list(self.out.glob("part-*"))) < count and self.process.poll() is None:
            assert time.monotonic() < until, "no parts came"
            time.sleep(0.02)

    def end(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        try:
            status = self.process.wait(PATIENCE_S)
        finally:
            kill_marked(self.mark)
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return status, *texts

    def named(self, name: str) -> list[psutil.Process]:
        return [process for process in marked(self.mark) if process.name().startswith(name)]


def kill(name: str) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.wait_for_parts()
        for process in run.named(name):
            process.kill()

    return change


def terminate(name: str) -> Callable[[Run], None]:
    """As a machine that is taken away does it."""

    def change(run: Run) -> None:
        run.wait_for_parts()
        for process in run.named(name):
            process.terminate()

    return change


def kill_worker(run: Run) -> None:
    """The process that works, as when the kernel has no memory left."""
    run.wait_for_parts()
    psutil.Process(run.process.pid).children()[0].kill()


def interrupt(number: int, *, group: bool, times: int = 1) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.wait_for_parts()
        for _ in range(times):
            (os.killpg if group else os.kill)(run.process.pid, number)
            time.sleep(0.7)

    return change


def interrupt_anywhere(run: Run) -> None:
    """Also while Python imports, and while Ray starts."""
    time.sleep(random.uniform(0.15, 8))
    os.killpg(run.process.pid, signal.SIGINT)


def take_over(run: Run) -> None:
    run.wait_for_parts()
    lease = max((run.out / "_pipemill/lease").glob("*.json"))
    number = int(lease.stem) + 1
    holder = replace(identify_owner("run"), pid=1, host="elsewhere")
    (lease.parent / f"{number:08d}.json").write_bytes(holder.to_bytes())


def block_writing(run: Run) -> None:
    """A folder where a part belongs."""
    run.wait_for_parts()
    plan = run.out / "_pipemill/plan.parquet/rows"
    from pipemill.jobs.output.split_plan import Plan

    for split in Plan.from_bytes(plan.read_bytes()).splits[-20:]:
        (run.out / split.part / "in the way").mkdir(parents=True, exist_ok=True)


def nulls() -> tuple[str | None, ...]:
    return tuple(None if n % 3 else f"text {n}" for n in range(ROWS))


INTERRUPTED = "pipemill: interrupted; run again to resume"
SLOW = {"LIGHT_SLOW": "0.1"}
WAYS = {
    "done": Way(0, ""),
    "max_errors": Way(
        1, "more than output.max_errors (5) allows", texts=nulls(), output={"max_errors": 5}
    ),
    "on_error": Way(1, "(output.on_error is raise)", texts=nulls(), output={"on_error": "raise"}),
    "does_not_fit": Way(2, "set actors.num_gpus to 0 for CPU", actors={"num_gpus": 1}),
    "does_not_load": Way(2, "no such weights", environment={"LIGHT_FAILS": "1"}),
    "ctrl_c": Way(130, INTERRUPTED, environment=SLOW, change=interrupt(signal.SIGINT, group=True)),
    "ctrl_c_twice": Way(
        130, INTERRUPTED, environment=SLOW, change=interrupt(signal.SIGINT, group=True, times=2)
    ),
    "ctrl_c_anywhere": Way(130, INTERRUPTED, environment=SLOW, change=interrupt_anywhere),
    "sigterm": Way(
        130, INTERRUPTED, environment=SLOW, change=interrupt(signal.SIGTERM, group=False)
    ),
    "taken_over": Way(1, "taken over by", environment=SLOW, change=take_over),
    "part_blocked": Way(
        2, "is damaged, or pipemill did not write it", environment=SLOW, change=block_writing
    ),
    "worker_killed": Way(1, "was killed by signal 9", environment=SLOW, change=kill_worker),
    "actor_killed": Way(0, "", environment=SLOW, change=kill("ray::MapWorker")),
    "actor_terminated": Way(0, "", environment=SLOW, change=terminate("ray::MapWorker")),
    "raylet_killed": Way(1, "raylet or the head", environment=SLOW, change=kill("raylet")),
    "head_killed": Way(1, "raylet or the head", environment=SLOW, change=kill("gcs_server")),
}
# What nobody should see.
NOISE = ("Traceback", "Exception ignored", "(raylet", "core_worker", "*** SIG", "ERROR", "WARNING")


def take(name: str) -> str:
    """Take a way once; return what is wrong, or ""."""
    way = WAYS[name]
    with tempfile.TemporaryDirectory(prefix="exits", ignore_cleanup_errors=True) as folder:
        run = Run(way, Path(folder))
        if way.change is not None:
            way.change(run)
        status, stdout, stderr = run.end()
    wrong = []
    if status != way.status:
        wrong.append(f"exit status {status}")
    if way.says not in stderr:
        wrong.append("no reason")
    if way.status and stderr.count("pipemill: ") != 1:
        wrong.append(f"{stderr.count('pipemill: ')} messages")
    if (way.status == 0) != stdout.rstrip().endswith("}"):
        wrong.append("JSON line" if way.status else "no JSON line")
    wrong += [f"says {noise}" for noise in NOISE if noise in stdout + stderr]
    if wrong:
        print(f"--- {name}: {', '.join(wrong)}\n{stdout}{stderr}---", file=sys.stderr, flush=True)
    return ", ".join(wrong)


def main(times: int, names: list[str]) -> int:
    # A shell's background commands ignore it, and so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = 0
    for name in names or WAYS:
        started = time.monotonic()
        counts = Counter(take(name) or "as it should be" for _ in range(times))
        failed += times - counts["as it should be"]
        each = (time.monotonic() - started) / times
        print(f"{name:<16} {each:5.1f} s each  {dict(counts)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
