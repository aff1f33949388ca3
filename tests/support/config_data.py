"""For each file of `configs/` a tiny model and tiny data of the form that it expects.

A config's name to a function of the session's models and a folder, which writes the input there
and returns the paths of model and input.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import made_media, tiny
from tests.support.config_data_text import CONFIG_DATA
from tests.support.config_data_text import Data as Wanted

Data = Callable[[Path], str]


def _pictures(folder: Path) -> str:
    for i, image in enumerate(made_media.pictures(3)):
        (folder / f"{i}.png").write_bytes(made_media.png(image))
    return str(folder)


def _clips(folder: Path) -> str:
    for i in range(3):
        # Long enough for 16 frames of which every fourth is taken.
        (folder / f"{i}.mp4").write_bytes(made_media.video(40 + 8 * i, 32, 64 + i, i))
    return str(folder)


def _table(**columns: list) -> Data:
    def write(folder: Path) -> str:
        path = folder / "rows.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write


def _files(seed: int) -> list[bytes]:
    return [made_media.png(image) for image in made_media.pictures(3, seed)]


def _pages(folder: Path) -> str:
    words = [tiny.sentence(count, count).split() for count in (60, 9, 30)]
    boxes = [[[9 * i, 5 * i, 9 * i + 40, 5 * i + 9] for i in range(len(own))] for own in words]
    questions = ["who is it ?", "is it cold", "what is red ?"]
    return _table(scan=_files(0), question=questions, words=words, boxes=boxes)(folder)


def _shelves(folder: Path) -> str:
    return _table(image=_files(0), wanted=[["bread"], ["red", "a stone"], ["wind"]])(folder)


def _pairs(folder: Path) -> str:
    return _table(left=_files(0), right=_files(1))(folder)


IMAGES: dict[str, tuple[str, Data]] = {
    "depth-estimation": ("depth-estimation", _pictures),
    "document-question-answering": ("document-question-answering", _pages),
    "image-classification": ("image-classification", _pictures),
    "image-feature-extraction": ("image-feature-extraction", _pictures),
    "image-segmentation": ("image-segmentation", _pictures),
    "image-to-image": ("image-to-image", _pictures),
    "image-to-text": ("image-to-text", _pictures),
    "keypoint-matching": ("keypoint-matching", _pairs),
    "mask-generation": ("mask-generation", _pictures),
    "object-detection": ("object-detection", _pictures),
    "video-classification": ("video-classification-16", _clips),
    "visual-question-answering": ("visual-question-answering", _pictures),
    "zero-shot-image-classification": ("zero-shot-image-classification", _pictures),
    "zero-shot-object-detection": ("zero-shot-object-detection", _shelves),
}


def _built(model: str, write: Data) -> Wanted:
    return lambda models, folder: (models[model], write(folder))


CONFIGS: dict[str, Wanted] = {
    **CONFIG_DATA,
    **{name: _built(model, write) for name, (model, write) in IMAGES.items()},
}
