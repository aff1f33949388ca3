"""Models of true shapes with random weights, their rows, and what a GPU can do with them."""

from __future__ import annotations

import json
import shutil
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


# Each of these runs in a separate process, and returns what is written.
