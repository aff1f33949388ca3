"""Texts and media on a GPU, side by side with what users would otherwise pick.

    python -m benchmarks.gpu --texts FILE.parquet --tokenizer FOLDER [--only e5-small,base-512]
        [--rows 200000] [--replicas 0,1,8] [--json FILE]
    python -m benchmarks.gpu --only vit-b,whisper-small,whisper-turbo,decoder-1b

Models have the true shapes and random weights; the tokenizer of those that encode texts is
--tokenizer's folder. For each of these: the forward pass alone on packed tokens that were prepared
before, the three stages in one process, whole runs over Ray from Parquet to Parquet,
transformers.pipeline and sentence-transformers in bfloat16. For images, speech and texts that are
written: whole runs, and transformers.pipeline. Each in a separate process, with a time limit;
results are written as they come. Steady rates leave out the start of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .contenders import (
    ALONE_ROWS,
    PIPELINE_ROWS,
    alone,
    on_ray,
    sentence_transformers,
    transformers_pipeline,
)
from .media import WORKS, run_peer
from .media import write_rows as write_media
from .models import SHAPES, build_model, long_texts, write_rows
from .separate_process import in_process

TEXTS = 200_000

Note = Callable[[str, str, dict[str, Any]], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", help="a Parquet file with a column of texts")
    parser.add_argument("--tokenizer", help="a folder")
    parser.add_argument("--only", default=",".join((*SHAPES, *WORKS)))
    parser.add_argument("--task", default="feature-extraction")
    parser.add_argument("--rows", type=int, default=0, help="0: for some 20 s on an H100")
    parser.add_argument("--replicas", default="0", help="0: as pipemill chooses")
    parser.add_argument(
        "--without", default="", help="contenders to leave out: alone,ray,transformers,peers"
    )
    parser.add_argument("--json", default="benchmarks/results/gpu.json")
    options = parser.parse_args()
    names = options.only.split(",")
    if SHAPES.keys() & set(names) and not (options.texts and options.tokenizer):
        parser.error(f"--texts and --tokenizer are needed, unless --only is of {', '.join(WORKS)}")
    results: dict[str, Any] = {}
    os.makedirs(os.path.dirname(options.json) or ".", exist_ok=True)

    def note(work: str, contender: str, figures: dict[str, Any]) -> None:
        results.setdefault(work, {})[contender] = figures
        Path(options.json).write_text(json.dumps(results, indent=1))
        print(work, contender, json.dumps(figures), flush=True)

    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            measure = _measure_media if name in WORKS else _measure_texts
            measure(name, options, Path(temporary), note)


def _measure_texts(name: str, options: argparse.Namespace, folder: Path, note: Note) -> None:
    without, task, model = options.without.split(","), options.task, folder / "model"
    long, rows = SHAPES[name].get("long"), options.rows or TEXTS
    texts = pq.read_table(options.texts)["text"].to_pylist()
    if long:
        texts, rows = long_texts(texts), rows // 8
    build_model(model, name, Path(options.tokenizer), task)
    if "alone" not in without:
        note(name, "alone", in_process(alone, name, task, str(model), texts[:ALONE_ROWS]))
    if "ray" not in without:
        write_rows(folder / "rows", texts, rows)
        _measure_ray(name, task, folder, options.replicas, {}, note)
    if "peers" in without:
        return
    some = texts[: PIPELINE_ROWS // (8 if long else 1)]
    for batch in (32, 128) if "transformers" not in without else ():
        figures = in_process(transformers_pipeline, task, str(model), some, batch)
        note(name, f"transformers batch_size={batch}", figures)
    if task == "feature-extraction":
        for batch in (32, 256):
            figures = in_process(sentence_transformers, str(model), texts, batch)
            note(name, f"sentence-transformers batch_size={batch}", figures)


def _measure_media(name: str, options: argparse.Namespace, folder: Path, note: Note) -> None:
    without, work = options.without.split(","), WORKS[name]
    rows = options.rows or work.rows
    work.build(folder / "model")
    if "ray" not in without:
        write_media(folder / "rows", work, rows)
        _measure_ray(name, work.task, folder, options.replicas, work.parameters, note)
    if {"peers", "transformers"}.isdisjoint(without):
        for batch in work.batches:
            figures = in_process(run_peer, name, f"{folder}/model", min(rows, work.some), batch)
            note(name, f"transformers batch_size={batch}", figures)


def _measure_ray(
    name: str, task: str, folder: Path, replicas: str, parameters: dict[str, Any], note: Note
) -> None:
    for count in map(int, replicas.split(",")):
        where = (f"{folder}/model", f"{folder}/rows", f"{folder}/out-{count}", count)
        note(name, f"ray x{count or 'auto'}", in_process(on_ray, task, *where, parameters))


if __name__ == "__main__":
    main()
