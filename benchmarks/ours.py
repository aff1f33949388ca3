"""pipemill itself, as a contender."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from .marks import Marks, of_two


class _Actors(threading.Thread):
    """Watches what the actors of this process hold; `peak` is the most of one, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        while True:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "MapWorker" in " ".join(process.cmdline()):
                        self.peak = max(self.peak, process.memory_info().rss)
            time.sleep(1)


def pipemill_run(model: str, rows: str, output: str, dtype: str = "float32", **job: Any) -> Marks:
    import pipemill

    actors = _Actors()
    actors.start()
    weights = {"path": model, "dtype": dtype}
    report = pipemill.run(model=weights, input=rows, output=output, **job)
    print(f"{report}\nan actor's most memory: {actors.peak // 2**20} MiB", file=sys.stderr)
    return _read_marks(output, "part-*")


def pipemill_apply(model: str, rows: str, output: str, **job: Any) -> Marks:
    """The task as a step of a pipeline of Ray Data, of as many actors as CPUs."""
    import ray

    import pipemill

    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(rows)
    pipemill.apply(dataset, model={"path": model, "dtype": "float32"}, **job).write_parquet(output)
    return _read_marks(output, "*.parquet")


def _read_marks(output: str, pattern: str) -> Marks:
    parts = sorted(Path(output).glob(pattern), key=lambda part: part.stat().st_mtime)
    marks, done = [], 0
    for part in parts:
        done += pq.read_metadata(part).num_rows
        marks.append((part.stat().st_mtime, done))
    return of_two(marks)
