"""Texts on a GPU, side by side with what users would otherwise pick.

    python -m benchmarks.gpu --texts FILE.parquet [--only e5-small,base-512] [--rows 200000]
        [--replicas 0,1,8] [--json FILE]

Models have the true shapes and random weights; their tokenizer is --tokenizer's folder. For each
model: the forward pass alone on packed tokens that were prepared before, the three stages in one
process, whole runs over Ray from Parquet to Parquet, transformers.pipeline and
sentence-transformers in bfloat16. Each in a process of its own, with a time limit; results are
written as they come. Steady rates leave out the start of a run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}
SHAPES: dict[str, dict[str, Any]] = {
    "minilm-l6": {"layers": 6, "width": 384, "heads": 12},
    "e5-small": {"layers": 12, "width": 384, "heads": 12},
    "base": {"layers": 12, "width": 768, "heads": 12},
    "base-512": {"layers": 12, "width": 768, "heads": 12, "long": True},
    "large": {"layers": 24, "width": 1024, "heads": 16},
    "modernbert-base": {"layers": 22, "width": 768, "heads": 12, "modern": True},
}
LIMIT_S = 100
ALONE_ROWS = 20_000
PIPELINE_ROWS = 4_000


def build_model(folder: Path, name: str, tokenizer: Path, task: str) -> None:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    shape = SHAPES[name]
    torch.manual_seed(0)
    common = {
        "vocab_size": 30522,
        "hidden_size": shape["width"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_labels": 4,
    }
    if shape.get("modern"):
        ids = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102}
        ids |= {"bos_token_id": 101, "eos_token_id": 102}
        config = transformers.ModernBertConfig(**common, **ids)
        kinds = (transformers.ModernBertModel, transformers.ModernBertForSequenceClassification)
    else:
        config = transformers.BertConfig(**common, intermediate_size=4 * shape["width"])
        kinds = (transformers.BertModel, transformers.BertForSequenceClassification)
    model = kinds[task == "text-classification"](config).to(torch.bfloat16)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (tokenizer / file).exists():
            shutil.copy(tokenizer / file, folder)
    config_file = folder / "tokenizer_config.json"
    if config_file.exists():
        said = json.loads(config_file.read_text())
        config_file.write_text(json.dumps({**said, "model_max_length": 512}))


def write_rows(folder: Path, texts: list[str], rows: int, shards: int = 8) -> None:
    """Write so many rows: the texts, and these with their words in other orders."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    written = 0
    for shard in range(shards):
        some = []
        for i in range(shard * rows // shards, (shard + 1) * rows // shards):
            text = texts[i % len(texts)]
            if i >= len(texts):
                words = text.split(" ")
                turn = int(rng.integers(len(words))) if len(words) > 1 else 0
                text = " ".join(words[turn:] + words[:turn] + [str(i)])
            some.append(text)
        ids = range(written, written + len(some))
        pq.write_table(pa.table({"id": ids, "text": some}), folder / f"{shard}.parquet")
        written += len(some)


def long_texts(texts: list[str]) -> list[str]:
    """Join texts to some 500 tokens each."""
    joined, words = [], []
    for text in texts:
        words += text.split(" ")
        while len(words) >= 330:
            joined.append(" ".join(words[:330]))
            words = words[330:]
    return joined


def flops_per_token(name: str, length: float) -> float:
    """Multiplications and additions of a forward pass, without the embedding table."""
    shape = SHAPES[name]
    width, layers = shape["width"], shape["layers"]
    # ModernBERT: 1152 wide, gated: three products
    inner = 3 * width * 1152 if shape.get("modern") else 2 * width * 4 * width
    return layers * (2 * (4 * width * width + inner) + 4 * width * length)


def peak() -> float | None:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


# Each of these runs in a process of its own, and returns what is written.


def alone(name: str, task: str, model: str, texts: list[str]) -> dict[str, Any]:
    """The forward pass on prepared streams, for several budgets, and the stages one by one."""
    import torch
    from pipemill.actors.arrow_arrays import field_values
    from pipemill.actors.batch import Batch
    from pipemill.actors.compute.micro_batches import micro_batches
    from pipemill.actors.compute.stages import CHUNKS
    from pipemill.pipelines.loading.model import Model
    from pipemill.pipelines.loading.task_loader import LoadTask

    on_gpu = torch.cuda.is_available()
    load = LoadTask(
        task=task,
        model=Model(path=model, dtype="bfloat16", num_gpus=1 if on_gpu else 0, num_cpus=1),
        columns=(("text", "text"),),
        max_tokens=32768,
    )
    began = time.perf_counter()
    stages = load()
    told: dict[str, Any] = {"load_s": round(time.perf_counter() - began, 2)}
    encoder = stages.task.encoder
    told["packed"], kernel = encoder.is_packed, getattr(encoder.engine, "kernel", None)
    told["kernel"] = getattr(kernel, "__name__", None)
    wait = torch.cuda.synchronize if on_gpu else (lambda: None)

    stages.expand(Batch(pa.table({"text": texts[:100]})))
    began = time.perf_counter()
    batch = stages.expand(Batch(pa.table({"text": texts})))
    told["expand_s"] = round(time.perf_counter() - began, 3)
    chunks = batch.rows[CHUNKS].combine_chunks().flatten()
    sizes = field_values(chunks, "size")
    tokens = int(sizes.sum())
    told |= {"rows": len(texts), "tokens": tokens}
    told["expand_tokens_per_s"] = round(tokens / told["expand_s"])
    began = time.perf_counter()
    tokenizer = encoder.pipeline.tokenizer.backend_tokenizer
    tokenizer.encode_batch_fast(texts)
    told["tokenizer_alone_tokens_per_s"] = round(tokens / (time.perf_counter() - began))
    length = float((sizes.astype(float) ** 2).sum() / tokens)
    told["forward"] = {}
    for budget in (16384, 32768, 65536, 131072):
        streams = []
        for cut in micro_batches(sizes, budget, padded=not encoder.is_packed):
            some = chunks.take(pa.array(cut))
            names = [f.name for f in some.type if f.name in ("input_ids", "token_type_ids")]
            columns = {n: some.field(n).flatten().to_numpy().astype(np.int64) for n in names}
            streams.append((columns, sizes[cut].copy()))
        for stream in streams[:2]:
            encoder.run(*stream)
        wait()
        began = time.perf_counter()
        for stream in streams:
            encoder.run(*stream)
        launched = time.perf_counter() - began
        wait()
        took = time.perf_counter() - began
        figures = {
            "tokens_per_s": round(tokens / took),
            "rows_per_s": round(len(texts) / took),
            "launch_share": round(launched / took, 2),
        }
        if on_gpu and (most := peak()):
            figures["mfu"] = round(flops_per_token(name, length) * tokens / took / most, 3)
        told["forward"][budget] = figures
    began = time.perf_counter()
    batch = stages.forward(batch)
    told["stage_forward_s"] = round(time.perf_counter() - began, 3)
    began = time.perf_counter()
    stages.regroup(batch)
    told["regroup_s"] = round(time.perf_counter() - began, 3)
    if on_gpu:
        told["profile"] = profile(encoder, streams[0])
        told["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return told


def profile(encoder: Any, stream: Any) -> list[str]:
    """The kernels that take most of the device's time in one micro-batch, and the host's."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as found:
        encoder.run(*stream)
        torch.cuda.synchronize()
    events = sorted(found.key_averages(), key=lambda e: -e.self_device_time_total)[:9]
    lines = [f"{e.key[:70]} x{e.count}: {e.self_device_time_total / 1e3:.2f} ms" for e in events]
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)[:7]
    host = [f"host {e.key[:60]} x{e.count}: {e.self_cpu_time_total / 1e3:.2f} ms" for e in events]
    return lines + host


def on_ray(task: str, model: str, rows: str, output: str, replicas: int) -> dict[str, Any]:
    """A whole run. replicas: on the GPU; 0 for what pipemill chooses."""
    import pipemill

    actors: dict[str, Any] = {"placement": "fused", "cluster": "local"}
    if replicas:
        actors["per_gpu"] = replicas
    began = time.time()
    report = pipemill.run(
        task=task, model={"path": model}, input=rows, output=output, actors=actors
    )
    whole = time.time() - began
    parts = sorted(Path(output).glob("part-*"), key=lambda part: part.stat().st_mtime)
    marks, done = [], 0
    for part in parts:
        done += pq.read_metadata(part).num_rows
        marks.append((part.stat().st_mtime, done))
    # The first part of each actor came with its start, and the last ones leave actors idle.
    marks = marks[len(marks) // 4 : -len(marks) // 8] or marks
    seconds = marks[-1][0] - marks[0][0]
    steady = (marks[-1][1] - marks[0][1]) / seconds if seconds > 0 else 0.0
    return {
        "whole_s": round(whole, 1),
        "parts_s": [round(p.stat().st_mtime - began, 1) for p in parts[:: max(len(parts) // 8, 1)]],
        "steady_rows_per_s": round(steady),
        "device_busy": report.device_busy,
        "max_tokens": report.max_tokens,
        "parts": len(parts),
        "dead": report.dead,
    }


def transformers_pipeline(task: str, model: str, texts: list[str], batch: int) -> dict[str, Any]:
    import torch
    import transformers

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    pipe = transformers.pipeline(task, model=model, device=device, dtype=torch.bfloat16)
    options: dict[str, Any] = {"truncation": True, "max_length": 512}
    if task == "feature-extraction":
        options = {"tokenize_kwargs": options, "return_tensors": True}

    def answer(some: list[str]) -> None:
        for vectors in pipe(some, batch_size=batch, **options):
            if task == "feature-extraction":
                vectors[0].mean(dim=0)

    answer(texts[: 2 * batch])
    began = time.perf_counter()
    answer(texts)
    return {"rows_per_s": round(len(texts) / (time.perf_counter() - began))}


def sentence_transformers(model: str, texts: list[str], batch: int) -> dict[str, Any]:
    import sentence_transformers
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    options = {"dtype": torch.bfloat16}
    encoder = sentence_transformers.SentenceTransformer(model, device=device, model_kwargs=options)
    encoder.encode(texts[: 2 * batch], batch_size=batch, show_progress_bar=False)
    began = time.perf_counter()
    encoder.encode(texts, batch_size=batch, show_progress_bar=False)
    return {"rows_per_s": round(len(texts) / (time.perf_counter() - began))}


def in_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call it in a new process; an error or a time limit is its result."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(LIMIT_S) else {"error": f"not done in {LIMIT_S} s"}
    except EOFError:
        found = {"error": "the process died"}
    process.kill()
    process.join()
    return found


def _send(pipe: Any, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send(function(*arguments))
    except BaseException:
        pipe.send({"error": traceback.format_exc()[-1500:]})


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
