"""The work on a split of texts, beside `transformers.pipeline` a row at a time.

    python -m benchmarks.text_tasks [--only zero-shot] [--rounds 3]

In one process on one thread, the model loaded, in CPU seconds, for all-MiniLM-L6-v2 (under a random
head but for embeddings) on texts of natural, log-normal length. Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from demo import newsgroups

from .contenders import LABELS
from .whole_run import write_model, write_rows

BUDGET = 2048
# The task of each kind of work, its parameters, and how many rows are measured.
WORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "embeddings": ("feature-extraction", {"pooling": "mean"}, 160),
    "zero-shot": ("zero-shot-classification", {"candidate_labels": LABELS}, 40),
    "short questions": ("question-answering", {}, 80),
    "long questions": ("question-answering", {}, 16),
}


def measure(work: str, rounds: int) -> float:
    """Return how many times the CPU seconds of pipemill transformers takes: a ratio of medians."""
    import torch

    torch.set_num_threads(1)
    newsgroups.prepare()
    pipemill.restore_pipelines()
    task, parameters, rows = WORKS[work]
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model"), work)
        write_rows(Path(folder, "rows"), work, rows)
        table = ds.dataset(f"{folder}/rows").to_table().drop_columns("id")
        load = LoadTask(
            task=task,
            model=Model(path=f"{folder}/model", dtype="float32", num_cpus=1),
            columns=tuple((name, name) for name in table.column_names),
            parameters=json.dumps(parameters),
            max_tokens=BUDGET,
        )
        loaded = load.loaded()
        stages: Any = load.stages(loaded)

        def one_by_one() -> None:
            with stages.task.encoder.as_loaded():
                for row in table.to_pylist():
                    answer(loaded.pipeline, task, row)

        ours = time_rounds(lambda: stages.process(Batch(table)), rounds)
        theirs = time_rounds(one_by_one, rounds)
    return theirs / ours


def answer(pipeline: Any, task: str, row: dict[str, str]) -> Any:
    if task == "feature-extraction":
        return pipeline(row["text"], tokenize_kwargs={"truncation": True})
    if task == "zero-shot-classification":
        return pipeline(row["text"], candidate_labels=LABELS)
    return pipeline(question=row["question"], context=row["context"])


def time_rounds(work: Callable[[], object], rounds: int) -> float:
    """Return the median of CPU seconds. A first round, which is not counted, warms up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for work in options.only or WORKS:
        print(f"{work}: {measure(work, options.rounds):.2f}", flush=True)


if __name__ == "__main__":
    main()
