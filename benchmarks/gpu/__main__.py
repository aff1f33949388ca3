"""Texts on a GPU, side by side with what users would otherwise pick.

    python -m benchmarks.gpu --texts FILE.parquet [--only e5-small,base-512] [--rows 200000]
        [--replicas 0,1,8] [--json FILE]

Models have the true shapes and random weights; their tokenizer is --tokenizer's folder. For each
model: the forward pass alone on packed tokens that were prepared before, the three stages in one
process, whole runs over Ray from Parquet to Parquet, transformers.pipeline and
sentence-transformers in bfloat16. Each in a separate process, with a time limit; results are
written as they come. Steady rates leave out the start of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
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
from .models import SHAPES, build_model, long_texts, write_rows
from .separate_process import in_process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--task", default="feature-extraction")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--replicas", default="0", help="0: as pipemill chooses")
    parser.add_argument(
        "--without", default="", help="contenders to leave out: alone,ray,transformers,peers"
    )
    parser.add_argument("--json", default="benchmarks/results/gpu.json")
    options = parser.parse_args()
    short = pq.read_table(options.texts)["text"].to_pylist()
    results: dict[str, Any] = {}
    os.makedirs(os.path.dirname(options.json) or ".", exist_ok=True)

    def note(work: str, contender: str, figures: dict[str, Any]) -> None:
        results.setdefault(work, {})[contender] = figures
        Path(options.json).write_text(json.dumps(results, indent=1))
        print(work, contender, json.dumps(figures), flush=True)

    without, task = options.without.split(","), options.task
    for work in options.only.split(","):
        long = SHAPES[work].get("long")
        texts = long_texts(short) if long else short
        rows = options.rows // 8 if long else options.rows
        with tempfile.TemporaryDirectory() as temporary:
            model = Path(temporary, "model")
            build_model(model, work, Path(options.tokenizer), task)
            if "alone" not in without:
                note(work, "alone", in_process(alone, work, task, str(model), texts[:ALONE_ROWS]))
            if "ray" not in without:
                write_rows(Path(temporary, "rows"), texts, rows)
                for replicas in map(int, options.replicas.split(",")):
                    output = str(Path(temporary, f"out-{replicas}"))
                    where = (str(model), f"{temporary}/rows", output, replicas)
                    note(work, f"ray x{replicas or 'auto'}", in_process(on_ray, task, *where))
            if "peers" not in without:
                some = texts[: PIPELINE_ROWS // (8 if long else 1)]
                for batch in (32, 128) if "transformers" not in without else ():
                    figures = in_process(transformers_pipeline, task, str(model), some, batch)
                    note(work, f"transformers batch_size={batch}", figures)
                if task == "feature-extraction":
                    for batch in (32, 256):
                        figures = in_process(sentence_transformers, str(model), texts, batch)
                        note(work, f"sentence-transformers batch_size={batch}", figures)


if __name__ == "__main__":
    main()
