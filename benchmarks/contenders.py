"""One contender's whole run, in a process of its own: Parquet in, Parquet out.

    python -m benchmarks.contenders WORK NAME MODEL INPUT OUTPUT

WORK is a key of `CONTENDERS`. Prints one JSON object: seconds since the process began, and rows/s
from the first results on.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from .marks import Marks, of_two
from .ours import pipemill_run

STARTED = psutil.Process().create_time()
WINDOW = 256  # rows per call of a loop

LABELS = ["politics", "sports", "science", "religion", "computers"]


def loop(
    rows: str, output: str, answer: Callable[[pa.Table], dict[str, Any]], window: int = WINDOW
) -> Marks:
    """What one writes first: go through the rows, write the answers."""
    table, marks, answers = ds.dataset(rows).to_table(), [], []
    for start in range(0, len(table), window):
        answers.append(pa.table(answer(table.slice(start, window))))
        marks.append((time.time(), min(start + window, len(table))))
    Path(output).mkdir(parents=True)
    for column in (found := pa.concat_tables(answers)).column_names:
        table = table.append_column(column, found[column])
    pq.write_table(table, f"{output}/all.parquet")
    return marks


def texts(table: pa.Table) -> list[str]:
    return table["text"].to_pylist()


def columns(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [answer[name] for answer in answers] for name in ("label", "score")}


def classifier(model: str) -> Any:
    import transformers

    return transformers.pipeline("text-classification", model=model, device="cpu")


def pipeline_loop(model: str, rows: str, output: str, batch_size: int) -> Marks:
    pipe = classifier(model)
    return loop(
        rows, output, lambda t: columns(pipe(texts(t), batch_size=batch_size, truncation=True))
    )


def zero_shot_loop(model: str, rows: str, output: str, batch_size: int) -> Marks:
    import transformers

    pipe = transformers.pipeline("zero-shot-classification", model=model, device="cpu")

    def answer(table: pa.Table) -> dict[str, Any]:
        found = pipe(texts(table), candidate_labels=LABELS, batch_size=batch_size)
        return {name: [a[name] for a in found] for name in ("labels", "scores")}

    return loop(rows, output, answer, window=32)


def question_loop(model: str, rows: str, output: str, batch_size: int) -> Marks:
    """transformers 5 has no such pipeline: that of 4.57, or else what pipemill restores."""
    import transformers

    if not transformers.__version__.startswith("4."):
        import pipemill

        pipemill.restore_pipelines()
    pipe = transformers.pipeline("question-answering", model=model, device="cpu")

    def answer(table: pa.Table) -> dict[str, Any]:
        found = pipe(table.select(["question", "context"]).to_pylist(), batch_size=batch_size)
        found = found if isinstance(found, list) else [found]
        return {name: [a[name] for a in found] for name in ("answer", "score")}

    return loop(rows, output, answer, window=16)


def datasets_map(model: str, rows: str, output: str, batch_size: int) -> Marks:
    import datasets

    pipe, marks = classifier(model), []

    def answer(batch: dict[str, Any]) -> dict[str, Any]:
        found = columns(pipe(batch["text"], batch_size=batch_size, truncation=True))
        marks.append((time.time(), len(batch["text"]) + (marks[-1][1] if marks else 0)))
        return found

    files = sorted(map(str, Path(rows).glob("*.parquet")))
    dataset = datasets.load_dataset("parquet", data_files=files, split="train")
    done = dataset.map(answer, batched=True, batch_size=WINDOW, load_from_cache_file=False)
    Path(output).mkdir(parents=True)
    done.to_parquet(f"{output}/all.parquet")
    return marks


class Classifier:
    """The callable class of Ray's guide to batch inference with a Hugging Face pipeline."""

    def __init__(self, model: str, batch_size: int) -> None:
        import torch

        torch.set_num_threads(1)
        self.pipe, self.batch_size = classifier(model), batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = self.pipe(list(batch["text"]), batch_size=self.batch_size, truncation=True)
        return {**batch, **columns(answers), "at": [time.time()] * len(answers)}


def ray_recipe(model: str, rows: str, output: str, batch_size: int) -> Marks:
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
    times = Counter(ds.dataset(output).to_table(columns=["at"])["at"].to_pylist())
    at = sorted(times)
    return of_two(list(zip(at, accumulate(times[moment] for moment in at), strict=True)))


def sentence_transformers(model: str, rows: str, output: str, medium: bool) -> Marks:
    import sentence_transformers
    import torch

    if medium:
        torch.set_float32_matmul_precision("medium")
    encoder = sentence_transformers.SentenceTransformer(model, device="cpu")
    vectors = partial(encoder.encode, show_progress_bar=False)
    return loop(rows, output, lambda table: {"embedding": list(vectors(texts(table)))})


def daft_embed_text(model: str, rows: str, output: str) -> Marks:
    """Steady state can't be told from outside: the whole run counts."""
    import daft
    from daft.functions.ai import embed_text

    frame = daft.read_parquet(f"{rows}/*.parquet")
    text = daft.col("text")
    frame = frame.with_column("embedding", embed_text(text, provider="transformers", model=model))
    started = time.time()
    frame.write_parquet(output)
    return [(started, 0), (time.time(), ds.dataset(output).count_rows())]


def daft_pipeline(model: str, rows: str, output: str) -> Marks:
    import daft

    @daft.udf(return_dtype=daft.DataType.string(), concurrency=1)
    class Label:
        def __init__(self) -> None:
            self.pipe = classifier(model)

        def __call__(self, texts: Any) -> list[str]:
            return [a["label"] for a in self.pipe(texts.to_pylist(), truncation=True)]

    frame = daft.read_parquet(f"{rows}/*.parquet")
    started = time.time()
    frame.with_column("label", Label(daft.col("text"))).write_parquet(output)
    return [(started, 0), (time.time(), ds.dataset(output).count_rows())]


CUT = {"truncation": True}
EMBED = partial(
    pipemill_run,
    task="feature-extraction",
    parameters={"normalize": True, "truncation": True, "max_length": 256},
)
CLASSIFY = partial(pipemill_run, task="text-classification", parameters=CUT)
ANSWER = {
    "pipemill": partial(pipemill_run, task="question-answering"),
    **{
        f"transformers, batch_size={size}": partial(question_loop, batch_size=size)
        for size in (1, 8)
    },
}

CONTENDERS: dict[str, dict[str, Callable[[str, str, str], Marks]]] = {
    "classification": {
        "pipemill": CLASSIFY,
        "pipemill, bfloat16": partial(CLASSIFY, dtype="bfloat16"),
        "transformers, batch_size=1": partial(pipeline_loop, batch_size=1),
        "transformers, batch_size=32": partial(pipeline_loop, batch_size=32),
        "datasets.map, batch_size=1": partial(datasets_map, batch_size=1),
        "Ray's recipe, batch_size=1": partial(ray_recipe, batch_size=1),
        "Daft with the pipeline": daft_pipeline,
    },
    "embedding": {
        "pipemill": EMBED,
        "pipemill, bfloat16": partial(EMBED, dtype="bfloat16"),
        "sentence-transformers": partial(sentence_transformers, medium=False),
        'sentence-transformers, "medium"': partial(sentence_transformers, medium=True),
        "Daft embed_text": daft_embed_text,
    },
    "zero-shot": {
        "pipemill": partial(
            pipemill_run, task="zero-shot-classification", parameters={"candidate_labels": LABELS}
        ),
        "transformers, batch_size=1": partial(zero_shot_loop, batch_size=1),
        "transformers, batch_size=8": partial(zero_shot_loop, batch_size=8),
    },
    "long questions": ANSWER,
    "short questions": ANSWER,
}


def main(work: str, name: str, model: str, rows: str, output: str) -> None:
    marks = CONTENDERS[work][name](model, rows, output)
    whole = time.time() - STARTED
    (first, before), (last, after) = marks[0], marks[-1]
    print(json.dumps({"whole_s": whole, "steady_rows_per_s": (after - before) / (last - first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
