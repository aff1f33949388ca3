"""Explain in plain words why a row failed: what a library says of it is often of no help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
from pipemill.actors.faults.blame import blame_column, is_memory_failure
from pipemill.actors.storage.partitions import FOLDER
from pipemill.actors.task import MEDIA

from pipemill.errors import error_message

from ..text.model_limits import explain_too_long
from .row_values import describe_value, read_rows

if TYPE_CHECKING:
    from .pipeline_adapter import PipelineAdapter

# The model is of another kind than its processor, or than its pipeline.
_NOT_THE_ROWS = re.compile(r"required positional argument|Config' object has no attribute")
# torch's embedding, and a tensor of a size; a prompt's tokens are checked.
_BEYOND_TABLE = "index out of range in self", "out of bounds for dimension 0 with size {}"


def explain_failure(adapter: PipelineAdapter, row: pa.Table, error: BaseException) -> BaseException:
    """Return an error that also says if the row's texts or media are hardly any, or too long.

    Args:
        adapter: the task.
        row: a table of the row that failed, with the task's columns.
        error: why it failed; returned as it is if nothing is odd about the row.
    """
    kinds, message = {**adapter.keywords.kinds, FOLDER: FOLDER}, error_message(error)
    beyond = any(sign.format(adapter.limit) in message for sign in _BEYOND_TABLE)
    if adapter.declared.written is not None and adapter.limit and beyond:
        return ValueError(explain_too_long(adapter.limit))
    names = [name for name in row.column_names if kinds[name] in ("text", *MEDIA, FOLDER)]
    if not names or is_memory_failure(type(error).__name__, message):
        return error
    if _NOT_THE_ROWS.search(message):
        return error
    try:
        with adapter.open_values(read_rows(row.select(names), kinds)[0]) as found:
            each = ((k, describe_value(v, kinds[k], adapter.pipeline)) for k, v in found.items())
            name, why = next(((k, why) for k, why in each if why), ("", None))
    except Exception:  # it is the media that can't be read, which the error says
        return error
    if why is None:
        return error
    explained = type(type(error).__name__, (Exception,), {})(f"{why}: {message}")
    return blame_column(explained, name)
