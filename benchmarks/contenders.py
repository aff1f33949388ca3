"""One contender's whole run, in a process of its own: Parquet in, Parquet out.

    python -m benchmarks.contenders NAME MODEL INPUT OUTPUT

Prints one JSON object: seconds since the process began, and rows/s from the first results on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq

STARTED = psutil.Process().create_time()
WINDOW = 256  # rows per call of a loop


def pipeline_loop(model: str, rows: str, output: str, batch_size: int) -> list[tuple[float, int]]:
    """What one writes first: load the pipeline, go through the rows, write the answers."""
    import transformers

    pipe = transformers.pipeline("text-classification", model=model, device="cpu")
    table = ds.dataset(rows).to_table()
    texts, answers, marks = table["text"].to_pylist(), [], []
    for start in range(0, len(texts), WINDOW):
        answers += pipe(texts[start : start + WINDOW], batch_size=batch_size, truncation=True)
        marks.append((time.time(), len(answers)))
    for name in ("label", "score"):
        table = table.append_column(name, [[answer[name] for answer in answers]])
    Path(output).mkdir(parents=True)
    pq.write_table(table, f"{output}/all.parquet")
    return marks


class Classifier:
    """The callable class of Ray's guide to batch inference with a Hugging Face pipeline."""

    def __init__(self, model: str, batch_size: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        self.pipe = transformers.pipeline("text-classification", model=model, device="cpu")
        self.batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = self.pipe(list(batch["text"]), batch_size=self.batch_size, truncation=True)
        batch["label"] = [answer["label"] for answer in answers]
        batch["score"] = [answer["score"] for answer in answers]
        batch["at"] = [time.time()] * len(answers)
        return batch


def ray_recipe(model: str, rows: str, output: str, batch_size: int) -> list[tuple[float, int]]:
    """Repartitioned, so that both actors work; Ray is told of more CPUs, so that it can read."""
    import ray
    from ray.data import ActorPoolStrategy

    ray.init(
        "local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(rows).repartition(32)
    dataset.map_batches(
        Classifier,
        fn_constructor_args=(model, batch_size),
        batch_size=WINDOW,
        compute=ActorPoolStrategy(size=2),
    ).write_parquet(output)
    times = sorted(ds.dataset(output).to_table(columns=["at"])["at"].to_pylist())
    return [(at, i + 1) for i, at in enumerate(times)]


def pipemill_run(model: str, rows: str, output: str) -> list[tuple[float, int]]:
    import pipemill

    pipemill.run(
        task="text-classification",
        model=model,
        input=rows,
        output=output,
        parameters={"truncation": True},
    )
    parts = sorted(Path(output).glob("part-*"), key=lambda part: part.stat().st_mtime)
    marks, done = [], 0
    for part in parts:
        done += pq.read_metadata(part).num_rows
        marks.append((part.stat().st_mtime, done))
    return marks


CONTENDERS = {
    "pipemill": pipemill_run,
    "transformers, batch_size=1": lambda *a: pipeline_loop(*a, batch_size=1),
    "transformers, batch_size=32": lambda *a: pipeline_loop(*a, batch_size=32),
    "Ray's recipe, batch_size=1": lambda *a: ray_recipe(*a, batch_size=1),
}


def main(name: str, model: str, rows: str, output: str) -> None:
    marks = CONTENDERS[name](model, rows, output)
    whole = time.time() - STARTED
    (first, before), (last, after) = marks[0], marks[-1]
    print(json.dumps({"whole_s": whole, "steady_rows_per_s": (after - before) / (last - first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
