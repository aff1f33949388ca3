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
    parts = sorted(Path(output).glob("part-*"), key=lambda part: part.stat().st_mtime)
    marks, done = [], 0
    for part in parts:
        done += pq.read_metadata(part).num_rows
        marks.append((part.stat().st_mtime, done))
    return of_two(marks)
