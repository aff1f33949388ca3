"""From a column's values to what a transformers pipeline takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pipemill.actors.task import MEDIA, Column, Parameter

from ..tasks.candidate_labels import parse_labels
from .chat_media import leave_media, open_media

WHOLE_NUMBER = Parameter(None, "int")


def media_kinds(inputs: tuple[Column, ...]) -> list[str]:
    """The kinds of media among a task's columns, for which libraries must be there."""
    return sorted({column.kind for column in inputs} & set(MEDIA))


@contextmanager
def open_row(
    row: dict[str, Any], kinds: dict[str, str], pipeline: Any, media: Any
) -> Iterator[dict]:
    """The row's values, decoded by their kind; what is null is left out.

    What a chat shows, and a video, which is a temporary file, is there as long as the context.
    """
    with ExitStack() as files:
        values = {
            name: _value(value, kinds[name], pipeline, media, files)
            for name, value in row.items()
            if value is not None
        }
        yield values
        leave_media(values.get("messages") or [])


def _value(value: Any, kind: str, pipeline: Any, media: Any, files: ExitStack) -> Any:
    if kind in MEDIA:
        return _decoded(value, kind, pipeline, media, files)
    value = plain_value(value, kind)
    if kind == "messages" and pipeline.processor is not None:  # a tokenizer alone sees no media
        open_media(value, lambda one, kind: _decoded(one, kind, pipeline, media, files))
    return value


def plain_value(value: Any, kind: str) -> Any:
    """A value of any kind but media."""
    if kind == "labels":
        return parse_labels(value)
    if kind == "number":
        # A column of whole numbers with nulls in it is often one of floats.
        return int(value) if math.isfinite(value) and value == int(value) else float(value)
    if kind == "texts":
        return value if isinstance(value, str) else [text for text in value if text is not None]
    if kind == "record":
        if isinstance(value, str):
            return read_json(value)
        return without_nulls(dict(value) if isinstance(value, list) else value)
    if kind == "messages":
        return messages_of(value)
    if kind == "table":
        return _table_of(value)
    return without_nulls(value)


def _decoded(value: Any, kind: str, pipeline: Any, access: Any, files: ExitStack) -> Any:
    from .. import media

    if kind == "audio" and isinstance(value, dict) and value.get("array") is not None:
        return media.audio(value, _sampling_rate(pipeline))
    data = access.fetch(value)
    if kind == "image":
        return media.image(data)
    if kind == "audio":
        return media.audio(data, _sampling_rate(pipeline))
    path = files.enter_context(media.video_file(data))
    media.check_video(path)
    return path


def _sampling_rate(pipeline: Any) -> int:
    extractor = pipeline.feature_extractor or pipeline.processor.feature_extractor
    return int(extractor.sampling_rate)


def messages_of(value: Any) -> list[dict[str, Any]]:
    """A chat. Raises ValueError if it is none."""
    chat = read_json(value) if isinstance(value, str) else without_nulls(value)
    if not isinstance(chat, list) or not chat:
        raise ValueError("messages are a list of {role, content}, with at least one of them")
    for message in chat:
        if not isinstance(message, dict) or "role" not in message:
            raise ValueError(f"a message is {{role, content}}, not {message!r}")
        message.setdefault("content", "")
    return chat


def read_json(value: Any) -> Any:
    """What a text holds; any other value as it is. Raises ValueError for a text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        shown = repr(value) if len(value) <= 60 else f"{value[:60]!r}…"
        raise ValueError(f"{shown} is not JSON: {error}") from None


def _table_of(value: Any) -> Any:
    """A data frame of texts, which is what table models read; null is an empty text.

    value: lists by column name, or the rows as structs, or either as JSON.
    """
    import pandas as pd

    table = read_json(value)
    if isinstance(table, list) and all(isinstance(row, dict) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        table = {name: [row.get(name) for row in table] for name in names}
    elif isinstance(table, list) and all(isinstance(pair, tuple) for pair in table):
        table = dict(table)  # an Arrow map
    if not isinstance(table, dict) or not all(isinstance(c, list) for c in table.values()):
        raise ValueError("a table is a mapping of column names to lists, or a list of rows")
    texts = {name: [_cell(cell) for cell in cells] for name, cells in table.items()}
    # Of objects: pandas would make numbers of columns with a null, and texts a type of its own,
    # in which a tokenizer can't put its cells.
    return pd.DataFrame(texts, dtype=object)


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def own_count(name: str, value: Any, default: int) -> int:
    """A row's own whole number. Raises ValueError, which names it, for any other."""
    if value is None:
        return default
    try:
        return int(WHOLE_NUMBER.validate(name, plain_value(value, "number")))
    except ValueError as error:
        raise own_value_error(error, [name]) from None


def own_value_error(error: ValueError, names: Iterable[str]) -> ValueError:
    """What a row says of its own values of parameters, and how to keep them from being read."""
    columns = ", ".join(f"{name}: null" for name in names)
    return ValueError(
        f"{error}. The row's own value; for columns that mean something else, "
        f"input.columns: {{{columns}}}"
    )


def without_nulls(value: Any) -> Any:
    """Arrow fills the fields that a struct has not with null: leave them out again."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    return value
