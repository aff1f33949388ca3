"""How near the work on a split comes to the model's own forward pass on the same tokens.

    python -m benchmarks.limit [--rows 600] [--rounds 5] [--dtype bfloat16]

In one process, on the same threads, in turn: the forward pass alone, on token streams that were
prepared beforehand; pipemill's expand, forward and regroup; and `transformers.pipeline`, a row at
a time, as it is and with the linear layers that pipemill has chosen, so that packing alone is the
difference. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pipemill.actors.arrow_arrays import field_values
from pipemill.actors.batch import Batch
from pipemill.actors.compute.micro_batches import cut_micro_batches
from pipemill.actors.compute.stages import CHUNKS
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from demo import newsgroups

from .whole_run import write_model, write_rows

BUDGET = 2048
LIMIT, OURS, PEER = "the forward pass alone", "pipemill", "transformers, batch_size=1"


def prepared(stages, texts: list[str]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Each micro-batch's columns and lengths."""
    batch = stages.expand(Batch(pa.table({"text": texts})))
    chunks = batch.rows[CHUNKS].combine_chunks().flatten()
    sizes = field_values(chunks, "size")
    streams = []
    for cut in cut_micro_batches(sizes, BUDGET, padded=False):
        some = chunks.take(pa.array(cut))
        names = [f.name for f in some.type if f.name in ("input_ids", "token_type_ids")]
        columns = {name: some.field(name).flatten().to_numpy().astype(np.int64) for name in names}
        streams.append((columns, sizes[cut].copy()))
    return streams


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    seconds = measure(options.rows, options.rounds, options.dtype)
    limit = statistics.median(seconds[LIMIT])
    print("| | s | of the limit |\n| --- | ---: | ---: |")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.2f} | {limit / middle:.0%} |")


def measure(
    rows: int,
    rounds: int,
    dtype: str = "float32",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each way in each round, by its name."""
    newsgroups.prepare()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model"), "classification")
        write_rows(Path(folder, "rows"), "classification", rows)
        texts = ds.dataset(f"{folder}/rows").to_table()["text"].to_pylist()
        load = LoadTask(
            task="text-classification",
            model=Model(path=f"{folder}/model", dtype=dtype, num_cpus=os.cpu_count() or 1),
            columns=(("text", "text"),),
            parameters='{"truncation": true}',
            max_tokens=BUDGET,
        )
        loaded = load.loaded()
        stages = load.stages(loaded)
        return compare(stages, loaded.pipeline, texts, rounds, clock)


def compare(
    stages, pipeline, texts: list[str], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    encoder = stages.task.encoder
    streams = prepared(stages, texts)
    assert encoder.is_packed

    def alone(linears: bool) -> None:
        faster = encoder.engine.model.linears
        with encoder.as_loaded():
            if linears:
                faster.use()
            for text in texts:
                pipeline(text, truncation=True)
            faster.leave()

    ways: dict[str, Callable[[], object]] = {
        LIMIT: lambda: [encoder.run(*stream) for stream in streams],
        OURS: lambda: stages.process(Batch(pa.table({"text": texts}))),
        PEER: lambda: alone(False),
        "transformers, batch_size=1, the same linears": lambda: alone(True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if round_:  # the first warms up
                seconds[name].append(clock() - start)
    return seconds


if __name__ == "__main__":
    main()
