"""One contender's whole run, in a separate process: Parquet in, Parquet out.

    python -m benchmarks.contenders WORK NAME MODEL INPUT OUTPUT

WORK is a key of `CONTENDERS`. Prints one JSON object: seconds since the process began, and rows/s
from the first results on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.dataset as ds

from . import embedders
from .loop import WINDOW, loop, texts
from .marks import Marks
from .on_ray import Classifier, Embedder, SentenceEmbedder, ray_recipe
from .ours import pipemill_apply, pipemill_run

STARTED = psutil.Process().create_time()

LABELS = ["politics", "sports", "science", "religion", "computers"]


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

    pipe = classifier(model)
    marks: Marks = []

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
    label = Label(daft.col("text"))  # type: ignore[call-arg]  # daft.cls gives it arguments
    frame.with_column("label", label).write_parquet(output)
    return [(started, 0), (time.time(), ds.dataset(output).count_rows())]


# What pipemill is asked for.
JOBS: dict[str, dict[str, Any]] = {
    "classification": {"task": "text-classification", "parameters": {"truncation": True}},
    "embedding": {
        "task": "feature-extraction",
        "parameters": {"normalize": True, **embedders.CUT},
    },
    "zero-shot": {
        "task": "zero-shot-classification",
        "parameters": {"candidate_labels": LABELS},
    },
    "long questions": {"task": "question-answering", "parameters": {}},
    "short questions": {"task": "question-answering", "parameters": {}},
}
QUESTIONS = {
    f"transformers, batch_size={size}": partial(question_loop, batch_size=size) for size in (1, 8)
}


def ours(work: str, **settings: Any) -> Callable[[str, str, str], Marks]:
    return partial(pipemill_run, **JOBS[work], **settings)


CONTENDERS: dict[str, dict[str, Callable[[str, str, str], Marks]]] = {
    "classification": {
        "pipemill": ours("classification"),
        "pipemill, bfloat16": ours("classification", dtype="bfloat16"),
        "pipemill.apply": partial(pipemill_apply, **JOBS["classification"]),
        "transformers, batch_size=1": partial(pipeline_loop, batch_size=1),
        "transformers, batch_size=32": partial(pipeline_loop, batch_size=32),
        "datasets.map, batch_size=1": partial(datasets_map, batch_size=1),
        "Ray's recipe, batch_size=1": partial(ray_recipe, actor=Classifier, batch_size=1),
        "Daft with the pipeline": daft_pipeline,
    },
    "embedding": {
        "pipemill": ours("embedding"),
        "pipemill, bfloat16": ours("embedding", dtype="bfloat16"),
        "transformers, batch_size=1": partial(embedders.pipeline_loop, batch_size=1),
        "transformers, batch_size=32": partial(embedders.pipeline_loop, batch_size=32),
        "sentence-transformers": partial(embedders.sentence_transformers, medium=False),
        'sentence-transformers, "medium"': partial(embedders.sentence_transformers, medium=True),
        "Ray's recipe, batch_size=1": partial(ray_recipe, actor=Embedder, batch_size=1),
        "Ray's recipe, sentence-transformers": partial(
            ray_recipe, actor=SentenceEmbedder, batch_size=32
        ),
        "Daft embed_text": embedders.daft_embed_text,
    },
    "zero-shot": {
        "pipemill": ours("zero-shot"),
        "transformers, batch_size=1": partial(zero_shot_loop, batch_size=1),
        "transformers, batch_size=8": partial(zero_shot_loop, batch_size=8),
    },
    "long questions": {"pipemill": ours("long questions"), **QUESTIONS},
    "short questions": {"pipemill": ours("short questions"), **QUESTIONS},
}


def main(work: str, name: str, model: str, rows: str, output: str) -> None:
    marks = CONTENDERS[work][name](model, rows, output)
    whole = time.time() - STARTED
    (first, before), (last, after) = marks[0], marks[-1]
    print(json.dumps({"whole_s": whole, "steady_rows_per_s": (after - before) / (last - first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
