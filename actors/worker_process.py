"""One worker in its own process, without Ray; `jobs/execution/single_process.py` starts it."""

from __future__ import annotations

import json
import os
import pickle
import queue
import sys
import threading
from typing import IO, Any

import pyarrow as pa

from .workers import FusedWorker


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Load, say so, and answer each split with its line until the driver ends or kills this."""
    splits: queue.Queue[dict[str, Any]] = queue.Queue()
    worker = FusedWorker(*pickle.load(requests))
    threading.Thread(target=_receive, args=(requests, splits), daemon=True).start()
    _send(replies, None)
    while True:
        table = worker(pa.table({"split": [json.dumps(splits.get())]}))
        _send(replies, table.drop_columns(["payload"]).to_pylist())


def _receive(requests: IO[bytes], splits: queue.Queue[dict[str, Any]]) -> None:
    try:
        while True:
            splits.put(pickle.load(requests))
    except Exception:  # the driver died
        os._exit(1)


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, protocol=5)
    pipe.flush()


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints must not get among the replies
    _serve(sys.stdin.buffer, own)
