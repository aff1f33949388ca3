"""A tiny model and a few rows for each config that reads text, tables, chats or sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import tiny, tiny_audio

REFERENCES = Path(__file__).parent.parent / "references" / "models"
Data = Callable[[Any, Path], tuple[str, str]]


def _own(model: str, columns: Callable[[Path], dict[str, Any]]) -> Data:
    """A tiny model that the session builds, and rows."""
    return lambda models, folder: (models[model], _written(folder, columns(folder)))


def _kept(model: str, columns: Callable[[Path], dict[str, Any]]) -> Data:
    """A tiny model of tests/references, and rows."""
    return lambda models, folder: (str(REFERENCES / model), _written(folder, columns(folder)))


def _written(folder: Path, columns: dict[str, Any]) -> str:
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def _texts(name: str, end: str = "") -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {name: [text + end for text in tiny.texts(6, seed=3, longest=12)]}


def _sounds(folder: Path) -> dict[str, Any]:
    return {"recording": tiny_audio.sounds()[:4]}


def _questions(folder: Path) -> dict[str, Any]:
    contexts = [tiny.sentence(20 + 30 * i, i) for i in range(4)]
    return {"question": [tiny.sentence(4, 9)] * 4, "context": contexts}


def _tables(folder: Path) -> dict[str, Any]:
    tables = [{"mill": [i, 7, None], "town": ["Paris", "Berlin", "London"]} for i in range(3)]
    return {"question": ["which town ?"] * 3, "table": tables}


def _chats(folder: Path) -> dict[str, Any]:
    chats = [[{"role": "user", "content": text}] for text in tiny.texts(4, seed=4, longest=9)]
    return {"messages": chats}


def _chats_with_images(folder: Path) -> dict[str, Any]:
    from PIL import Image

    chats = []
    for i in range(3):
        Image.new("RGB", (30 + i, 20), (90 * i, 40, 200)).save(folder / f"{i}.png")
        parts = [{"type": "image", "path": f"{i}.png"}, {"type": "text", "text": "the mill ?"}]
        chats.append(json.dumps([{"role": "user", "content": parts}]))
    return {"messages": chats}


def _chats_with_sound(folder: Path) -> dict[str, Any]:
    parts = [{"type": "audio"}, {"type": "text", "text": "the bell ?"}]
    chat = [{"role": "user", "content": parts}]
    return {"messages": [chat] * 4, **_sounds(folder)}


CONFIG_DATA: dict[str, Data] = {
    "any-to-any": _own("any-to-any", _chats_with_sound),
    "audio-classification": _own("audio-classification", _sounds),
    "automatic-speech-recognition": _own("whisper", _sounds),
    "conversational": _kept("llama", _chats),
    "decision": _own("decision", _texts("text")),
    "feature-extraction": _own("feature-extraction", _texts("text")),
    "fill-mask": _own("fill-mask", _texts("text", " [MASK]")),
    "image-text-to-text": _own("image-text-to-text", _chats_with_images),
    "question-answering": _kept("question_answering_bert", _questions),
    "summarization": _kept("bart", _texts("text")),
    "table-question-answering": _own("table-question-answering", _tables),
    "text-classification": _own("text-classification", _texts("review")),
    "text-generation": _own("text-generation", _chats),
    "text-to-audio": _own("text-to-audio", _texts("text")),
    "text2text-generation": _kept("t5", _texts("text")),
    "token-classification": _own("token-classification", _texts("text")),
    "translation": _kept("bart", _texts("text")),
    "translation_en_to_de": _kept("t5", _texts("text")),
    "zero-shot-audio-classification": _own("zero-shot-audio-classification", _sounds),
    "zero-shot-classification": _own("zero-shot-classification", _texts("text")),
}
