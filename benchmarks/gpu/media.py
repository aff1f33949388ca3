"""Images, speech and written texts on a GPU: models of true shapes, their rows, and the peer."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..generation import WORDS, make_tokenizer
from ..images.__main__ import make_photo, write_model
from ..speech.__main__ import RATE, make_random_pipeline, make_sounds

_DISTINCT = 256  # media files; those that follow have other bytes at their end
_VOCABULARY = 32_000
_ONE_BILLION = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A model, and what it reads.

    Attributes:
        build: writes the model into a folder.
        make_rows: yields the column's values, no two of them equal.
        rows: of a whole run.
        some: rows that the peer is measured with.
        batches: the peer's batch sizes.
    """

    task: str
    column: str
    build: Callable[[Path], None]
    make_rows: Callable[[int], Iterator[Any]]
    rows: int
    some: int
    batches: tuple[int, ...]
    parameters: dict[str, Any] = field(default_factory=dict)


def _make_photos(count: int) -> Iterator[bytes]:
    files = [make_photo(seed) for seed in range(min(count, _DISTINCT))]
    for number in range(count):  # what follows a JPEG's end is not read
        yield files[number % len(files)] + number.to_bytes(4, "little")


def _make_recordings(count: int) -> Iterator[bytes]:
    files = [file for file, _ in make_sounds(min(count, _DISTINCT))]
    for number in range(count):  # the last two samples
        yield files[number % len(files)][:-4] + number.to_bytes(4, "little")


def _make_prompts(count: int) -> Iterator[str]:
    chance = random.Random(3)
    for number in range(count):
        yield f"{number} " + " ".join(chance.choices(WORDS, k=chance.randint(2, 300)))


def _write_whisper(folder: Path, **shape: int) -> None:
    import torch

    torch.manual_seed(5)
    pipeline = make_random_pipeline(**shape)
    pipeline.model.to(torch.bfloat16)
    pipeline.save_pretrained(folder)


def _write_decoder(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(11)
    tokenizer = make_tokenizer(_VOCABULARY)
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=0.1,
        **_ONE_BILLION, **ids,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    try:
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder)


_SMALL: dict[str, Any] = {"width": 768, "encoder_layers": 12, "decoder_layers": 12}
_TURBO: dict[str, Any] = {"width": 1280, "encoder_layers": 32, "decoder_layers": 4, "mels": 128}
_HEAR: dict[str, Any] = {
    "task": "automatic-speech-recognition",
    "column": "audio",
    "make_rows": _make_recordings,
    "parameters": {"chunk_length_s": 30, "generate_kwargs": {"num_beams": 1}},
}
WORKS = {
    "vit-b": Work(
        "image-classification", "image", partial(write_model, name="vit-b"), _make_photos,
        rows=40_000, some=2_000, batches=(32, 128),
    ),
    "whisper-small": Work(
        build=partial(_write_whisper, **_SMALL), rows=2_000, some=100, batches=(8, 32), **_HEAR
    ),
    "whisper-turbo": Work(
        build=partial(_write_whisper, **_TURBO), rows=2_000, some=100, batches=(8, 32), **_HEAR
    ),
    # Answers end after 1 to 128 tokens: at one of 2 % of all tokens.
    "decoder-1b": Work(
        "text-generation", "text", _write_decoder, _make_prompts,
        rows=4_000, some=256, batches=(32, 128),
        parameters={
            "max_new_tokens": 128, "do_sample": False, "return_full_text": False,
            "eos_token_id": list(range(2, _VOCABULARY, 50)),
        },
    ),
}  # fmt: skip


def write_rows(folder: Path, work: Work, rows: int, shards: int = 8) -> None:
    folder.mkdir()
    values = work.make_rows(rows)
    for shard in range(shards):
        some = list(itertools.islice(values, -(-rows // shards)))
        table = pa.table({"id": [f"{shard}-{i}" for i in range(len(some))], work.column: some})
        pq.write_table(table, folder / f"{shard}.parquet", row_group_size=500)


def run_peer(name: str, model: str, rows: int, batch: int) -> dict[str, Any]:
    """Time transformers' pipeline on some rows, in bfloat16, loaded beforehand."""
    import torch
    import transformers

    work = WORKS[name]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    pipe = transformers.pipeline(work.task, model=model, device=device, dtype=torch.bfloat16)
    values = list(work.make_rows(rows))

    def answer(some: list[Any]) -> None:
        for _ in pipe((_open_media(one) for one in some), batch_size=batch, **work.parameters):
            pass

    if work.task == "text-generation":
        pipe.tokenizer.padding_side = "left"
    answer(values[:batch])
    began = time.perf_counter()
    answer(values)
    return {"rows_per_s": round(len(values) / (time.perf_counter() - began), 1)}


def _open_media(value: Any) -> Any:
    """Return what a pipeline takes: pictures, samples, and texts as they are."""
    import io

    from PIL import Image
    from pipemill.pipelines.media import decode_audio

    if not isinstance(value, bytes):
        return value
    is_sound = value.startswith(b"RIFF")
    return decode_audio(value, RATE) if is_sound else Image.open(io.BytesIO(value))
