"""Images through classifiers of true shapes with random weights, beside `transformers.pipeline`.

    python -m benchmarks.images [--images 96] [--rounds 3] [--threads 2] [--whole 1000]
    python -m benchmarks.images --engine openvino:float32 --engine openvino:int8

In one process, in turn, on the same threads and rows: pipemill's expand, forward and regroup, and
transformers' pipeline at several batch sizes, loaded beforehand. Prints medians of wall time, and
the least processor time, which other work on the machine disturbs less. With --engine,
these engines, too. With --whole, then whole runs: each in a new process, Parquet to Parquet.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

TASK = "image-classification"
SIZES = [(640, 480), (500, 375), (375, 500), (800, 600)]
BATCHES = (1, 8, 32)


def make_photo(seed: int) -> bytes:
    """Make a JPEG with as much detail at every scale as a photo has: about 100 kB."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    pixels = np.full((height, width, 3), 128.0)
    for step in (2, 4, 8, 16, 32, 64, 128):
        coarse = rng.normal(0, 1, (height // step + 2, width // step + 2, 3))
        shades = np.uint8((coarse * 40 + 128).clip(0, 255))
        fine = Image.fromarray(shades).resize((width, height), Image.Resampling.BICUBIC)
        pixels += (np.asarray(fine) - 128.0) * step**0.5 / 6
    file = io.BytesIO()
    Image.fromarray(np.uint8(pixels.clip(0, 255))).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_model(folder: Path, name: str) -> None:
    import torch
    import transformers as t

    torch.manual_seed(0)
    if name == "resnet-50":
        model = t.ResNetForImageClassification(t.ResNetConfig(num_labels=1000))
        resize = {"size": {"shortest_edge": 224}, "resample": 3, "crop_pct": 0.875}
        processor = t.ConvNextImageProcessorPil(**resize)
    else:
        width = {"vit-ti": 192, "vit-s": 384, "vit-b": 768}[name]
        sizes = {"hidden_size": width, "intermediate_size": 4 * width}
        config = t.ViTConfig(**sizes, num_attention_heads=width // 64, num_labels=1000)
        model, processor = t.ViTForImageClassification(config), t.ViTImageProcessorPil()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def load_pipeline(model: str) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.pipeline(TASK, model=model, device="cpu")


def pipeline_answers(pipe: Any, files: list[bytes], batch_size: int) -> list[Any]:
    from PIL import Image

    images: Iterator[Any] = (Image.open(io.BytesIO(file)) for file in files)
    return list(pipe(images, batch_size=batch_size))


@dataclass
class Times:
    """Seconds of each way in each round, by its name."""

    walls: dict[str, list[float]]
    busy: dict[str, list[float]]


def load_stages(model: str, rows: Path, engine: str, dtype: str, threads: int) -> Any:
    """Return the stages of a job over these rows."""
    from pipemill.jobs.config.load import make_job
    from pipemill.jobs.prepare import prepare_without_output

    job = {"task": TASK, "model": {"path": model, "engine": engine, "dtype": dtype}}
    paths = {"input": str(rows), "output": str(rows.parent / "out")}
    actors = {"num_cpus": threads, "num_gpus": "cpu"}
    return prepare_without_output(make_job({**job, **paths, "actors": actors}, "benchmark")).load()


def measure(
    model: str,
    rows: Path,
    rounds: int,
    threads: int,
    sizes: Sequence[int],
    engines: Sequence[str],
) -> Times:
    import torch
    from pipemill.actors.batch import Batch

    pipe = load_pipeline(model)
    ways: dict[str, Callable[[], object]] = {}
    table = pq.read_table(rows)
    files = table["image"].to_pylist()
    for name in ("float32", "bfloat16", *engines):
        engine, _, dtype = name.rpartition(":")
        ours = load_stages(model, rows, engine or "auto", dtype, threads)

        def compute(ours: Any = ours) -> object:
            return ours.process(Batch(table))

        ways[f"pipemill, {name}"] = compute
    for size in sizes:
        ways[f"transformers, batch_size={size}"] = partial(pipeline_answers, pipe, files, size)
    torch.set_num_threads(threads)
    times = Times({name: [] for name in ways}, {name: [] for name in ways})
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            if round_:  # the first warms up, and measures the budget
                times.walls[name].append(time.perf_counter() - wall)
                times.busy[name].append(time.process_time() - cpu)
    return times


def show(times: Times, images: int) -> None:
    head = ("", "images/s", "pipemill is", "CPU ms an image", "pipemill is")
    print(f"| {' | '.join(head)} |\n| --- | ---: | ---: | ---: | ---: |")
    first = statistics.median(times.walls["pipemill, float32"])
    least = min(times.busy["pipemill, float32"])
    for name in times.walls:
        wall, cpu = statistics.median(times.walls[name]), min(times.busy[name])
        print(
            f"| {name} | {images / wall:.1f} | {wall / first:.2f} x | "
            f"{cpu / images * 1e3:.1f} | {cpu / least:.2f} x |",
            flush=True,
        )


def whole(model: str, rows: Path, batch_size: int) -> float:
    """Return the seconds of a whole run. batch_size: 0 for pipemill."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.images", "--run"]
        run = json.dumps([model, str(rows), f"{folder}/out", batch_size])
        start = time.perf_counter()
        subprocess.run([*command, run], check=True, stdout=sys.stderr)
        return time.perf_counter() - start


def run(model: str, rows: str, output: str, batch_size: int) -> None:
    if not batch_size:
        import pipemill

        pipemill.run(task=TASK, model=model, input=rows, output=output)
        return
    table = ds.dataset(rows).to_table()
    found = pipeline_answers(load_pipeline(model), table["image"].to_pylist(), batch_size)
    for name in ("label", "score"):
        table = table.append_column(f"{name}s", pa.array([[a[name] for a in row] for row in found]))
    pq.write_table(table, output)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", action="append", choices=["vit-ti", "vit-s", "vit-b", "resnet-50"]
    )
    parser.add_argument("--engine", action="append", default=[], metavar="ENGINE:DTYPE")
    parser.add_argument("--batch", type=int, action="append", help="a batch size of the peer")
    parser.add_argument("--whole", type=int, default=0, help="images of the whole runs")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(*json.loads(options.run))
        return
    files = [make_photo(seed) for seed in range(max(options.images, 24))][: options.images]
    sizes = options.batch or BATCHES
    for name in options.only or ("vit-s", "resnet-50"):
        with tempfile.TemporaryDirectory() as folder:
            model, rows = Path(folder, "model"), Path(folder, "rows.parquet")
            write_model(model, name)
            print(f"\n{name}, {len(files)} JPEGs, {options.threads} threads\n", flush=True)
            if options.rounds:
                pq.write_table(pa.table({"image": files}), rows)
                of = options.rounds, options.threads, sizes, options.engine
                times = measure(str(model), rows, *of)
                show(times, len(files))
            if options.whole:
                # Equal images would be computed once.
                many = [make_photo(seed) for seed in range(options.whole)]
                pq.write_table(pa.table({"id": range(len(many)), "image": many}), rows)
                for size in (0, *sizes, 0):
                    label = f"transformers, batch_size={size}" if size else "pipemill"
                    print(f"whole run, {label}: {whole(str(model), rows, size):.1f} s", flush=True)


if __name__ == "__main__":
    main()
