"""Vectors of texts (means of their tokens, of length 1): what users would otherwise pick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from .loop import loop, texts
from .marks import Marks

CUT = {"truncation": True, "max_length": 256}  # as sentence-transformers has it for this model


def means(pipe: Any, some: list[str], batch_size: int) -> Iterator[np.ndarray]:
    """The pipeline knows no pooling, and leaves the padding of a batch in its answers."""
    cut = pipe.tokenizer(some, **CUT)["input_ids"] if batch_size > 1 else [None] * len(some)
    found = pipe(some, batch_size=batch_size, tokenize_kwargs=CUT, return_tensors=True)
    for vectors, ids in zip(found, cut, strict=True):
        mean = vectors[0, : len(ids) if ids else None].mean(dim=0).numpy()
        yield mean / np.linalg.norm(mean)


def pipeline_loop(model: str, rows: str, output: str, batch_size: int) -> Marks:
    import transformers

    pipe = transformers.pipeline("feature-extraction", model=model, device="cpu")
    return loop(rows, output, lambda t: {"embedding": list(means(pipe, texts(t), batch_size))})


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
