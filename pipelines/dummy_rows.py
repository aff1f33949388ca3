"""Make dummy rows that any model of a task can take, to try one that has answered none."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.task import MEDIA

from .adapter.row_values import drops_text
from .media import encode_png, encode_wav
from .task_spec import TaskSpec

# One is short and small, and one is neither: a row may be too short, or too small, for any model.
_COUNT = 2
_REPEATS = (1, 3)  # of a text
_SIDES = ((64, 64), (640, 480))
_FRAMES = (32, 512)
_SECONDS = (1, 10)
_RATE = 16_000
# A model that works answers no page without words, and none is drawn here.
_READS_PAGES = "document-question-answering"


def make_dummy_rows(
    spec: TaskSpec, pipeline: Any, columns: Mapping[str, str], given: Collection[str]
) -> pa.Table:
    """Return a few rows; none where it is not known what the task can take.

    Args:
        spec: the task.
        pipeline: the loaded pipeline.
        columns: the task's column names to those of the input.
        given: the input's columns that hold values in some rows.
    """
    read = [column for column in spec.inputs if column.name in columns]
    optional = [column for column in read if not column.required]
    # Rows that lack a column may fail for that; later ones may have it, and be answered.
    lacks = any(columns[column.name] not in given for column in optional)
    # Nor is it known which value of one, such as a language, suits the model.
    if lacks or any(column.parameter for column in optional) or spec.name == _READS_PAGES:
        return pa.table({})
    if _has_places(spec, pipeline, {column.kind for column in read}):
        return pa.table({})
    try:
        rows = range(_COUNT)
        made = {columns[c.name]: [_make(c.kind, row, spec, pipeline) for row in rows] for c in read}
        return pa.table(made)
    except Exception:  # a library of media is missing, or the task reads what is not made here
        return pa.table({})


def _has_places(spec: TaskSpec, pipeline: Any, kinds: Collection[str]) -> bool:
    """Tell whether texts must say where the media of their row belong."""
    if not (any(column.kind == "messages" for column in spec.inputs) and set(MEDIA) & set(kinds)):
        return False
    template = getattr(pipeline.processor, "chat_template", None)
    return "messages" in kinds or ("text" in kinds and not template)


def _make(kind: str, row: int, spec: TaskSpec, pipeline: Any) -> Any:
    text = " ".join(["a", "river", "and", "a", "mill"][: 1 + 4 * row] * _REPEATS[row])
    if kind in ("text", "texts", "messages") and drops_text(text, pipeline):
        raise ValueError("no text is made in the model's script")
    if kind in ("text", "texts"):
        mask = pipeline.tokenizer.mask_token if spec.name == "fill-mask" else ""
        return f"{text} {mask}".strip()
    if kind == "messages":
        return json.dumps([{"role": "user", "content": text}])
    if kind == "labels":
        return ["a", "b"]
    if kind == "table":
        return json.dumps({"a": ["1", "2"], "b": ["3", "4"]})
    width, height = _SIDES[row]
    pixels = np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
    if kind == "image":
        return encode_png(pixels)
    if kind == "audio":
        return encode_wav(np.random.default_rng(row).normal(0, 0.1, _SECONDS[row] * _RATE), _RATE)
    if kind == "video":
        return _make_video(pixels[:96, :96], _FRAMES[row])
    raise ValueError(f"no {kind} is made")


def _make_video(pixels: np.ndarray, frames: int) -> bytes:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return sink.getvalue()
