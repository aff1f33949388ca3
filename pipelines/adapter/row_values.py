"""Make the inputs of a transformers pipeline of a row's column values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.columns import SAMPLES
from pipemill.actors.faults.blame import blame_column
from pipemill.actors.task import MEDIA, Column, Parameter

from ..text.candidate_labels import parse_labels, read_list
from .chat_media import leave_media, open_media

# What transformers reads sound at for a model that names no rate.
_USUAL_RATE = 16_000

WHOLE_NUMBER = Parameter(None, "int")


def list_media_kinds(inputs: tuple[Column, ...]) -> list[str]:
    """Return the kinds of media among a task's columns: libraries must be there for them."""
    return sorted({column.kind for column in inputs} & set(MEDIA))


@contextmanager
def open_row(
    row: dict[str, Any], kinds: dict[str, str], pipeline: Any, media: Any
) -> Iterator[dict]:
    """Give the row's values, decoded by their kind, without those that are null.

    Media of a chat, and a video, which is a temporary file, exist inside the block.
    """
    with ExitStack() as files:
        values = {}
        for name, value in row.items():
            if value is None:
                continue
            try:
                values[name] = _make_value(value, kinds[name], pipeline, media, files)
            except Exception as error:
                blame_column(error, name)
                raise
        yield values
        leave_media(values.get("messages") or [])


def read_rows(rows: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each row's values in Python; samples that are whole numbers keep their type."""
    values = rows.to_pylist()
    for name in rows.column_names:
        type = rows.schema.field(name).type
        if kinds.get(name) != "audio" or not pa.types.is_struct(type):
            continue
        inner = type.field("array").type if type.get_field_index("array") >= 0 else type
        while hasattr(inner, "value_type"):
            inner = inner.value_type
        if inner in SAMPLES:
            for row in values:
                _keep_type(row[name], inner.to_pandas_dtype())
    return values


def _keep_type(audio: dict[str, Any] | None, dtype: type) -> None:
    if audio is not None and audio.get("array") is not None:
        samples = np.asarray(audio["array"])
        if samples.dtype.kind == "i":  # else a sample is null, or there are none
            audio["array"] = samples.astype(dtype)


def _make_value(value: Any, kind: str, pipeline: Any, media: Any, files: ExitStack) -> Any:
    if kind in MEDIA:
        return _decode(value, kind, pipeline, media, files)
    value = make_plain_value(value, kind)
    if kind == "messages" and pipeline.processor is not None:  # a tokenizer alone sees no media
        open_media(value, lambda one, kind: _decode(one, kind, pipeline, media, files))
    return value


def make_plain_value(value: Any, kind: str) -> Any:
    """Return a value of any kind but media as a pipeline takes it."""
    if kind == "labels":
        return parse_labels(value)
    if kind == "number":
        # A column of whole numbers with nulls in it is often one of floats.
        return int(value) if math.isfinite(value) and value == int(value) else float(value)
    if kind == "texts":
        if isinstance(value, str):
            return read_list(value) or value
        return [text for text in value if text is not None]
    if kind == "record":
        if isinstance(value, str):
            return read_json(value)
        return leave_out_nulls(dict(value) if isinstance(value, list) else value)
    if kind == "messages":
        return read_messages(value)
    if kind == "text" and isinstance(value, list) and None in value:
        raise ValueError(f"word {value.index(None)} is null")
    if kind == "table":
        return _make_table(value)
    return leave_out_nulls(value)


def _decode(value: Any, kind: str, pipeline: Any, access: Any, files: ExitStack) -> Any:
    from ..media.audio import decode_audio
    from ..media.images import decode_image
    from ..media.video import check_video, open_video_file

    if kind == "audio" and isinstance(value, dict) and value.get("array") is not None:
        return decode_audio(value, _find_sampling_rate(pipeline))
    data = access.fetch(value)
    if kind == "image":
        return decode_image(data)
    if kind == "audio":
        return decode_audio(data, _find_sampling_rate(pipeline))
    path = files.enter_context(open_video_file(data))
    check_video(path)
    return path


def drops_text(text: str, pipeline: Any) -> bool:
    """Tell whether a tokenizer leaves nothing of a text, as one that speaks in another script."""
    tokenizer = pipeline.tokenizer or getattr(pipeline.processor, "tokenizer", None)
    return tokenizer is not None and not tokenizer.tokenize(text)


def describe_value(value: Any, kind: str, pipeline: Any) -> str | None:
    """Return why a model may not take a value, decoded if it is media; None if it may."""
    from ..media.small_media import describe_small_media

    if kind == "text":
        if not drops_text(value, pipeline):
            return None
        return f"the text {_shorten_repr(value)} has no character that the model's tokenizer knows"

    rate = _find_sampling_rate(pipeline) if kind == "audio" else 0
    return describe_small_media(value, kind, rate)


def _find_sampling_rate(pipeline: Any) -> int:
    places = [(pipeline, "feature_extractor")]
    # Granite Speech and Phi-4 call it audio_processor.
    places += [(pipeline.processor, name) for name in ("feature_extractor", "audio_processor")]
    parts = (getattr(owner, name, None) for owner, name in places)
    rates = (getattr(part, "sampling_rate", None) for part in parts)
    return int(next(filter(None, rates), _USUAL_RATE))


def read_messages(value: Any) -> list[dict[str, Any]]:
    """Return a chat as a list of messages. Raise ValueError if the value is not a chat.

    value: a list of messages, or that as JSON, or each of its messages as JSON.
    """
    if isinstance(value, list) and any(isinstance(message, str) for message in value):
        chat = [read_json(message) for message in value]
    else:
        chat = read_json(value) if isinstance(value, str) else leave_out_nulls(value)
    if not isinstance(chat, list) or not chat:
        raise ValueError("messages are a list of {role, content}, with at least one of them")
    for message in chat:
        if not isinstance(message, dict) or "role" not in message:
            raise ValueError(f"a message is {{role, content}}, not {_shorten_repr(message)}")
        content = message.setdefault("content", "")
        if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
            raise ValueError(
                "the content of a message is a text or a list of parts, such as "
                f"{{type: text, text: …}}, not {_shorten_repr(content)}"
            )
    return chat


def read_json(value: Any, make: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return what a JSON text holds, or a value that is not a text as it is.

    make: makes an object of its names and values.

    Raises:
        ValueError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=make)
    except json.JSONDecodeError as error:
        raise ValueError(f"{_shorten_repr(value)} is not JSON: {error}") from None


def _shorten_repr(value: Any) -> str:
    """Return a value for a message, without what is too much of it."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}…"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _make_table(value: Any) -> Any:
    """Return a data frame of texts, which is what table models read; null is an empty text.

    value: lists by column name, or the rows as structs, or either as JSON.
    """
    import pandas as pd

    table = read_json(value, _check_unique)
    if isinstance(table, list) and all(isinstance(row, dict) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        table = {name: [row.get(name) for row in table] for name in names}
    elif isinstance(table, list) and all(isinstance(pair, tuple) for pair in table):
        table = _check_unique(table)  # an Arrow map
    if not isinstance(table, dict) or not all(isinstance(c, list) for c in table.values()):
        raise ValueError("a table is a mapping of column names to lists, or a list of rows")
    if len(counts := sorted({len(cells) for cells in table.values()})) > 1:
        raise ValueError(
            f"the columns of the table have from {counts[0]} to {counts[-1]} cells: give each as "
            "many as the others (null for none)"
        )
    texts = {name: [_format_cell(cell) for cell in cells] for name, cells in table.items()}
    # As objects: pandas would make numbers of columns with a null, and give texts a type in which
    # a tokenizer can't put its cells.
    return pd.DataFrame(texts, dtype=object)


def _check_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the table has two columns named {twice!r}: rename one")
    return dict(pairs)


def _format_cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def read_own_count(name: str, value: Any, default: int) -> int:
    """Return a row's own whole number. Raise ValueError, which names it, for another value."""
    if value is None:
        return default
    try:
        return int(WHOLE_NUMBER.validate(name, make_plain_value(value, "number")))
    except ValueError as error:
        raise explain_own_value(error, [name]) from None


def explain_own_value(error: ValueError, names: Iterable[str]) -> ValueError:
    """Return the error of a row's own parameters, with how to keep them from being read."""
    columns = ", ".join(f"{name}: null" for name in names)
    return ValueError(
        f"{error}. It is the row's own value; for columns that mean something else, "
        f"input.columns: {{{columns}}}"
    )


def leave_out_nulls(value: Any) -> Any:
    """Leave out null fields: Arrow fills those that a struct does not have with null."""
    if isinstance(value, dict):
        return {k: leave_out_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [leave_out_nulls(v) for v in value]
    return value
