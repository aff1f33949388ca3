"""Where a row's time goes, stage by stage: pipemill beside a peer.

    python -m benchmarks.breakdown [--work embedding] [--rows 256]

In one process on one thread: milliseconds a row of each stage and, by torch's profiler, of each
kind of operation; the tokens a row that the model is given, padding included.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import torch
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from demo import newsgroups

from .contenders import JOBS
from .whole_run import write_model, write_rows

# What torch calls its operations; the first that is found in a name counts.
KINDS = {
    "attention": "attention|bmm|softmax",
    "linear layers": "addmm|aten::mm|linear",
    "gelu": "gelu",
    "layer norm, embeddings, others": "",
}
ROWS = {"zero-shot": 64, "long questions": 24, "short questions": 128}


def peer(work: str, model: str, rows: pa.Table) -> tuple[str, Any, Callable[[], object]]:
    """The nearest one's name, its model, and a pass over all rows.

    Of questions it is transformers 4.57's pipeline as pipemill restores it.
    """
    import transformers

    if work == "embedding":
        import sentence_transformers

        encoder = sentence_transformers.SentenceTransformer(model, device="cpu")
        texts = rows["text"].to_pylist()
        return "sentence-transformers", encoder, lambda: encoder.encode(texts)
    size = 8 if work == "zero-shot" else 1
    pipe = transformers.pipeline(JOBS[work]["task"], model=model, device="cpu")
    settings = {**JOBS[work]["parameters"], "batch_size": size}
    columns = ["question", "context"] if "questions" in work else ["text"]
    given = rows.select(columns).to_pylist()
    if len(columns) == 1:
        given = [row["text"] for row in given]
    return f"transformers, batch_size={size}", pipe.model, lambda: pipe(given, **settings)


def kinds(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of each kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    seconds: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = next(kind for kind, name in KINDS.items() if re.search(name, event.key))
        seconds[kind] += event.self_cpu_time_total / 1e6
    return dict(seconds)


def tokens_given(model: torch.nn.Module, run: Callable[[], object]) -> int:
    """Tokens and padding that the layers work on, of a forward pass over all rows."""
    given: list[int] = []
    embeddings = next(m for n, m in model.named_modules() if n.endswith("word_embeddings"))
    hook = embeddings.register_forward_hook(lambda _, inputs, __: given.append(inputs[0].numel()))
    run()
    hook.remove()
    return sum(given)


def parts(model: torch.nn.Module, run: Callable[[], object], rows: int) -> dict[str, float]:
    """Per row: tokens, and milliseconds of each kind and of the whole pass."""
    found = {"tokens and padding": tokens_given(model, run) / rows}  # it warms up, too
    start = time.perf_counter()
    run()
    whole = time.perf_counter() - start
    found |= {kind: kinds(run).get(kind, 0) / rows * 1000 for kind in KINDS}
    return {**found, "the whole": whole / rows * 1000}


def compare(work: str, folder: Path, rows: pa.Table) -> None:
    columns = ("question", "context") if "questions" in work else ("text",)
    load = LoadTask(
        task=JOBS[work]["task"],
        model=Model(path=str(folder / "model"), num_cpus=1),
        columns=tuple((name, name) for name in columns),
        parameters=json.dumps(JOBS[work]["parameters"]),
    )
    loaded = load.loaded()
    stages = load.stages(loaded)
    for _ in range(4):  # until the budget has been found
        stages.process(Batch(rows))
    batch = stages.process(Batch(rows))
    ours = parts(loaded.pipeline.model, lambda: stages.process(Batch(rows)), len(rows))
    for stage in ("expand", "forward", "regroup"):
        ours[stage] = batch.stats[f"{stage}_seconds"] / len(rows) * 1000
    name, model, run = peer(work, str(folder / "model"), rows)
    theirs = parts(model, run, len(rows))
    print(f"\n{work}, {len(rows)} rows, ms a row, one thread\n\n| | pipemill | {name} |")
    print("| --- | ---: | ---: |")
    for part in ("tokens and padding", *KINDS, "expand", "forward", "regroup", "the whole"):
        cells = (f"{found[part]:.2f}" if part in found else "" for found in (ours, theirs))
        print(f"| {part} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=list(JOBS), action="append")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    newsgroups.prepare()
    torch.set_num_threads(1)
    for work in options.work or JOBS:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder, "model"), work)
            write_rows(Path(folder, "rows"), work, options.rows or ROWS.get(work, 256))
            compare(work, Path(folder), ds.dataset(f"{folder}/rows").to_table())


if __name__ == "__main__":
    main()
