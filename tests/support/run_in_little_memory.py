"""Embeds texts with little memory to spare, and prints what happened as JSON.

The answers are compared with those of one chunk at a time, computed before the limit.
"""

from __future__ import annotations

import json
import resource
import sys

import numpy as np
import pyarrow as pa

ROOM = 128 * 2**20  # what may be allocated beyond what the loaded model takes
BUDGET = 2**17
ROWS = 600


def main() -> None:
    import torch
    import transformers
    from pipemill.actors.batch import Batch
    from pipemill.actors.compute.stages import Stages
    from pipemill.actors.compute.token_budget import TokenBudget
    from pipemill.actors.task import Loaded
    from pipemill.pipelines.tasks.feature_extraction import FeatureExtraction

    from tests.support import tiny

    texts = [tiny.sentence(30, seed) for seed in range(ROWS)]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    words = tiny.tokenizer(256)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=1024,
        initializer_range=0.5,
    )
    model = transformers.BertModel(config).eval()
    pipeline = transformers.pipeline("feature-extraction", model=model, tokenizer=words)
    task = FeatureExtraction(Loaded(pipeline=pipeline, parameters={}))

    def embed(rows: list[str], budget: TokenBudget) -> tuple[Batch, np.ndarray]:
        batch = Stages(task, {"text": "text"}, budget).process(Batch(pa.table({"text": rows})))
        if batch.failures:
            sys.exit(f"{len(batch.failures)} rows failed: {next(iter(batch.failures.values()))}")
        return batch, np.array(batch.results["embedding"].to_pylist())

    few = texts[::100]
    alone = embed(few, TokenBudget(1))[1]
    resource.setrlimit(resource.RLIMIT_AS, (_size() + ROOM, resource.RLIM_INFINITY))
    budget = TokenBudget(BUDGET)
    batch, answers = embed(texts, budget)
    json.dump(
        {
            "failures": [f.message for f in batch.failures.values()],
            "out_of_memory": batch.stats.get("out_of_memory", 0),
            "budget": budget.tokens,
            "farthest": float(np.abs(answers[::100] - alone).max()),
            "spread": float(np.ptp(alone, axis=0).max()),
        },
        sys.stdout,
    )


def _size() -> int:
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
