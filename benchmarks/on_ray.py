"""The callable classes of Ray's guides to batch inference, with Hugging Face models."""

from __future__ import annotations

import time
from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from .embedders import means
from .loop import WINDOW
from .marks import Marks, of_two


class Classifier:
    def __init__(self, model: str, batch_size: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        self.pipe = transformers.pipeline("text-classification", model=model, device="cpu")
        self.batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = self.pipe(list(batch["text"]), batch_size=self.batch_size, truncation=True)
        found = {name: [answer[name] for answer in answers] for name in ("label", "score")}
        return {**batch, **found, "at": [time.time()] * len(answers)}


class Embedder:
    def __init__(self, model: str, batch_size: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        self.pipe = transformers.pipeline("feature-extraction", model=model, device="cpu")
        self.batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        vectors = np.array(list(means(self.pipe, list(batch["text"]), self.batch_size)))
        return {**batch, "embedding": vectors, "at": [time.time()] * len(vectors)}


class SentenceEmbedder:
    def __init__(self, model: str, batch_size: int) -> None:
        import sentence_transformers
        import torch

        torch.set_num_threads(1)
        self.encoder = sentence_transformers.SentenceTransformer(model, device="cpu")
        self.batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        vectors = self.encoder.encode(
            list(batch["text"]), batch_size=self.batch_size, show_progress_bar=False
        )
        return {**batch, "embedding": vectors, "at": [time.time()] * len(vectors)}


def ray_recipe(model: str, rows: str, output: str, actor: type, batch_size: int) -> Marks:
    """Repartitioned, so that both actors work; Ray is told of more CPUs, so that it can read."""
    import ray
    from ray.data import ActorPoolStrategy

    ray.init(
        "local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(rows).repartition(32)
    dataset.map_batches(
        actor,
        fn_constructor_args=(model, batch_size),
        batch_size=WINDOW,
        compute=ActorPoolStrategy(size=2),
    ).write_parquet(output)
    times = Counter(ds.dataset(output).to_table(columns=["at"])["at"].to_pylist())
    at = sorted(times)
    return of_two(list(zip(at, accumulate(times[moment] for moment in at), strict=True)))
