"""Whole runs side by side: pipemill, and what its users would otherwise pick.

    python -m benchmarks.whole_run [--rows 8000] [--rounds 3] [--work classification]

Each contender works on the same texts of natural, log-normal length with the same model of 22
million parameters (all-MiniLM-L6-v2; for classification under a random head), in a fresh process,
in turn. Prints the tables of medians and saves them in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demo import newsgroups

from .contenders import CONTENDERS

SHARDS = 4
# A run of so many rows would take far longer than the others: fewer, and the rest is reckoned.
FEWER_ROWS = {"transformers, batch_size=32": 1000}


def write_rows(folder: Path, rows: int) -> np.ndarray:
    """Real posts cut to log-normal lengths, as sharded Parquet; returns their lengths in words."""
    words = [post["text"].split() for post in newsgroups.posts()]
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(20), 0.95, rows).astype(int).clip(2, 380)
    texts = [
        " ".join((words[i % len(words)] * (1 + n // max(len(words[i % len(words)]), 1)))[:n])
        for i, n in enumerate(lengths)
    ]
    table = pa.table({"id": range(rows), "text": texts})
    folder.mkdir(parents=True)
    for i in range(SHARDS):
        pq.write_table(table.slice(i * rows // SHARDS, rows // SHARDS), folder / f"{i}.parquet")
    return lengths


def write_model(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    source = str(newsgroups.FOLDER / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(source, num_labels=4)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def measure(work: str, name: str, model: Path, rows: Path, output: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.contenders", work, name, str(model), str(rows)]
    done = subprocess.run([*command, str(output)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=list(CONTENDERS), action="append")
    options = parser.parse_args()
    newsgroups.prepare()
    results = Path("benchmarks/results")
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_model(root / "classification")
        (root / "embedding").symlink_to((newsgroups.FOLDER / "model").resolve())
        lengths = write_rows(root / "rows", options.rows)
        write_rows(root / "fewer", min(FEWER_ROWS.values()))
        for work in options.work or CONTENDERS:
            figures = compare(work, root, options.rounds)
            text = f"{work}: {table(figures, options.rows, lengths)}"
            (results / f"{work}.md").write_text(text)
            (results / f"{work}.json").write_text(json.dumps(figures, indent=1))
            print(text)


def compare(work: str, root: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """The figures of every contender, a round of all after another."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS[work]}
    for round_ in range(rounds):
        for name in figures:
            rows, output = root / ("fewer" if name in FEWER_ROWS else "rows"), root / "out"
            figures[name].append(measure(work, name, root / work, rows, output))
            shutil.rmtree(output)
            print(f"round {round_ + 1}: {name}: {figures[name][-1]}", file=sys.stderr)
    return figures


def table(figures: dict[str, list[dict[str, float]]], rows: int, lengths: np.ndarray) -> str:
    steady = {n: statistics.median(f["steady_rows_per_s"] for f in fs) for n, fs in figures.items()}
    whole = {n: statistics.median(f["whole_s"] for f in fs) for n, fs in figures.items()}
    for name, fewer in FEWER_ROWS.items():
        if name in whole:
            whole[name] += (rows - fewer) / steady[name]
    middle, high, top = np.percentile(lengths, [50, 90, 99]).astype(int)
    lines = [
        f"{rows:,} texts of {middle} words in the median, {high} at 90 %, {top} at 99 %; "
        f"medians of {len(figures['pipemill'])} rounds in turn; {os.cpu_count()} cores of "
        f"{processor()}, float32.",
        "",
        "| | whole run, s | pipemill is | steady, rows/s | pipemill is |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in figures:
        guess = "≈ " if name in FEWER_ROWS else ""
        lines.append(
            f"| {name} | {guess}{whole[name]:.0f} | {whole[name] / whole['pipemill']:.2f} x | "
            f"{steady[name]:.0f} | {steady['pipemill'] / steady[name]:.2f} x |"
        )
    return "\n".join(lines) + "\n"


def processor() -> str:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"
    )


if __name__ == "__main__":
    main()
