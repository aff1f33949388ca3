"""A worker in a separate process, without Ray; `jobs/execution/single_process.py` starts it."""

from __future__ import annotations

import os
import queue
import threading
from typing import IO

from .child_process import receive, send, take_over_pipes
from .split import Split
from .workers.fused import FusedWorker


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Load the task, report that, and answer each split until the driver ends or kills this."""
    splits: queue.Queue[Split] = queue.Queue()
    worker = FusedWorker(*receive(requests))
    threading.Thread(target=_receive_splits, args=(requests, splits), daemon=True).start()
    send(replies, None)
    while True:
        send(replies, worker.process(splits.get()))


def _receive_splits(requests: IO[bytes], splits: queue.Queue[Split]) -> None:
    try:
        while True:
            splits.put(receive(requests))
    except Exception:  # the driver died
        os._exit(1)


if __name__ == "__main__":
    _serve(*take_over_pipes())
