"""Tiny models and tokenizers, saved with their weights; for transformers 4.57.6 only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODELS = HERE / "models"
LARGEST_BYTES = 150_000


def save(name: str, model: Any, tokenizer: Any) -> str:
    """Save both to `models/NAME`, in place of what was there; returns the folder."""
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < LARGEST_BYTES, f"{folder} has {size} bytes"
    return str(folder)


def write(name: str, content: dict[str, Any]) -> None:
    """Write `NAME.json` beside this file, with the versions that made it."""
    import torch
    import transformers

    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    parts = [f"{json.dumps(key)}: {_lines(value)}" for key, value in content.items()]
    parts.insert(0, f'"versions": {json.dumps(versions)}')
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _lines(value: Any) -> str:
    """JSON with one line for each item of a list: a changed case is a changed line."""
    if not isinstance(value, list):
        return json.dumps(value, indent=1)
    return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"


def spread(model: Any, layer: Any, inputs: dict[str, Any], deviation: float) -> None:
    """Scale the linear `layer` so that its outputs for `inputs` deviate by `deviation`.

    Wide initial weights make answers differ; unscaled, one of them would have all the probability.
    """
    import torch

    seen = []
    hook = layer.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model.eval()(**inputs)
        layer.weight.mul_(deviation / seen[0].std())
    hook.remove()


def wordpiece(texts: Iterable[str], words: Iterable[str]) -> list[str]:
    """A WordPiece vocabulary: the special tokens, every character of the texts, some words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({c for text in texts for c in text.lower() if not c.isspace()})
    return list(dict.fromkeys([*special, *letters, *(f"##{c}" for c in letters), *words]))


def byte_level(texts: Iterable[str], special: list[str], size: int) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with special tokens first, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(texts, trainer)
    return fast
