"""What is measured on a GPU: pipemill, its forward pass alone, and its peers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .models import flops_per_token, peak

ALONE_ROWS = 20_000
PIPELINE_ROWS = 4_000


def alone(name: str, task: str, model: str, texts: list[str]) -> dict[str, Any]:
    """The forward pass on prepared streams, for several budgets, and the stages one by one."""
    import torch
    from pipemill.actors.arrow_arrays import field_values
    from pipemill.actors.batch import Batch
    from pipemill.actors.compute.micro_batches import cut_micro_batches
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
    stages: Any = load()
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
        for cut in cut_micro_batches(sizes, budget, padded=not encoder.is_packed):
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


def on_ray(
    task: str,
    model: str,
    rows: str,
    output: str,
    replicas: int,
    parameters: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A whole run. replicas: on the GPU; 0 for what pipemill chooses."""
    import pipemill

    actors: dict[str, Any] = {"placement": "fused", "cluster": "local"}
    if replicas:
        actors["per_gpu"] = replicas
    began = time.time()
    report = pipemill.run(
        task=task,
        model={"path": model},
        input=rows,
        output=output,
        parameters=parameters or {},
        actors=actors,
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
