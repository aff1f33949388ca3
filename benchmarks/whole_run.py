"""Whole runs side by side: pipemill, and what its users would otherwise pick.

    python -m benchmarks.whole_run [--rows 8000] [--rounds 3] [--work classification] [--posts]

Each contender works on the same texts of natural, log-normal length with the same model of 22
million parameters (all-MiniLM-L6-v2; under a random head but for embeddings), in a fresh process,
in turn. Prints the tables of medians and saves them in benchmarks/results/.

--python-4: a Python that has transformers 4.57, which still answers questions by itself.
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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demo import newsgroups

from .chart import draw
from .contenders import CONTENDERS

SHARDS = 4
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("SequenceClassification", {"num_labels": 4}),
    "zero-shot": (
        "SequenceClassification",
        {"num_labels": 3, "id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}},
    ),
    "long questions": ("QuestionAnswering", {}),
    "short questions": ("QuestionAnswering", {}),
}
# Rows of these works are several forward passes, or long.
ROWS_PER_ROW = {"zero-shot": 8, "long questions": 40, "short questions": 4}
FEWEST_ROWS = 40  # more than one call of any loop: what comes after the first is the steady state
# A run of so many rows would take far longer than the others: fewer, and the rest is an estimate.
FEWER_ROWS = {"transformers, batch_size=32": 1000}


def write_rows(folder: Path, work: str, rows: int, whole: bool = False) -> np.ndarray:
    """Real posts cut to log-normal lengths, as sharded Parquet; returns their lengths in words.

    Of long questions the context is several posts, of which a model sees a window at a time.
    whole: the posts as they are, instead.
    """
    # transformers' zero-shot pipeline stops at an empty text.
    words = [words for post in newsgroups.posts() if (words := post["text"].split())]
    middle = {"long questions": 900, "short questions": 60}.get(work, 20)
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(middle), 0.95 if middle < 100 else 0.4, rows).astype(int)
    lengths = lengths.clip(2, 3000 if middle > 100 else 380)
    if whole:
        lengths = np.array([len(words[i % len(words)]) for i in range(rows)])
    texts = [
        " ".join((words[i % len(words)] * (1 + n // max(len(words[i % len(words)]), 1)))[:n])
        for i, n in enumerate(lengths)
    ]
    columns = {"id": range(rows), "text": texts}
    if "questions" in work:
        asked = [" ".join(words[-i % len(words)][:8]) + "?" for i in range(rows)]
        columns = {"id": range(rows), "question": asked, "context": texts}
    table = pa.table(columns)
    folder.mkdir(parents=True)
    for i in range(SHARDS):
        first, last = i * rows // SHARDS, (i + 1) * rows // SHARDS
        pq.write_table(table.slice(first, last - first), folder / f"{i}.parquet")
    return lengths


def write_model(folder: Path, work: str) -> None:
    """all-MiniLM-L6-v2 under a head of random weights, or as it is."""
    import torch
    import transformers

    source = (newsgroups.FOLDER / "model").resolve()
    if work not in HEADS:
        folder.symlink_to(source)
        return
    torch.manual_seed(0)
    head, settings = HEADS[work]
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(str(source), **settings)
    model.save_pretrained(folder)
    # As they are: transformers 4 does not read what 5 writes.
    for file in source.glob("*tok*"):
        shutil.copy(file, folder)
    for name in ("vocab.txt", "special_tokens_map.json"):
        if (source / name).exists():
            shutil.copy(source / name, folder)


def measure(
    python: str, work: str, name: str, model: Path, rows: Path, output: Path
) -> dict[str, float]:
    command = [python, "-m", "benchmarks.contenders", work, name, str(model), str(rows)]
    done = subprocess.run([*command, str(output)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    print(done.stderr[-400:] if name == "pipemill" else "", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=list(CONTENDERS), action="append")
    parser.add_argument("--posts", action="store_true", help="whole posts, not cut to any length")
    parser.add_argument("--only", action="append", help="beside pipemill")
    parser.add_argument("--python-4", default=sys.executable)
    options = parser.parse_args()
    newsgroups.prepare()
    results = Path("benchmarks/results")
    results.mkdir(exist_ok=True)
    for work in options.work or CONTENDERS:
        names = [n for n in CONTENDERS[work] if n in ["pipemill", *(options.only or [n])]]
        rows = max(options.rows // ROWS_PER_ROW.get(work, 1), FEWEST_ROWS)
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            write_model(root / "model", work)
            lengths = write_rows(root / "rows", work, rows, options.posts)
            write_rows(root / "fewer", work, min(FEWER_ROWS.values()), options.posts)
            figures = compare(work, names, root, options.rounds, options.python_4)
        whole, steady = medians(figures, rows)
        text = f"{work}: {table(whole, steady, rows, options.rounds, lengths)}"
        file = results / (work + " of posts" * options.posts).replace(" ", "_")
        file.with_suffix(".md").write_text(text)
        file.with_suffix(".json").write_text(json.dumps(figures, indent=1))
        draw(work, rows, whole, steady, file.with_suffix(".png"))
        print(text, flush=True)


def compare(
    work: str, names: list[str], root: Path, rounds: int, python_4: str
) -> dict[str, list[dict[str, float]]]:
    """The figures of every contender, a round of all after another."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in figures:
            rows, output = root / ("fewer" if name in FEWER_ROWS else "rows"), root / "out"
            old = "questions" in work and name.startswith("transformers")
            python = python_4 if old else sys.executable
            figures[name].append(measure(python, work, name, root / "model", rows, output))
            shutil.rmtree(output)
            print(f"round {round_ + 1}: {name}: {figures[name][-1]}", file=sys.stderr)
    return figures


def medians(
    figures: dict[str, list[dict[str, float]]], rows: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the whole run and steady rows/s of each contender."""
    steady = {n: statistics.median(f["steady_rows_per_s"] for f in fs) for n, fs in figures.items()}
    whole = {n: statistics.median(f["whole_s"] for f in fs) for n, fs in figures.items()}
    for name, fewer in FEWER_ROWS.items():
        if name in whole:
            whole[name] += (rows - fewer) / steady[name]
    return whole, steady


def table(
    whole: dict[str, float],
    steady: dict[str, float],
    rows: int,
    rounds: int,
    lengths: np.ndarray,
) -> str:
    middle, high, top = np.percentile(lengths, [50, 90, 99]).astype(int)
    lines = [
        f"{rows:,} texts of {middle} words in the median, {high} at 90 %, {top} at 99 %; "
        f"medians of {rounds} rounds in turn; {os.cpu_count()} cores of "
        f"{processor()}, float32 but where another is named.",
        "",
        "| | whole run, s | pipemill is | steady, rows/s | pipemill is |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in whole:
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
