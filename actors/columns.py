"""Match the types of columns with the kinds of a task's inputs."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types


def matches(kind: str, type: pa.DataType) -> bool:
    """Tell whether a column of that type can hold values of a kind, one of `task.KINDS`."""
    return _KINDS[kind][0](type)


def describe(kind: str) -> str:
    """Return what a column of this kind holds, for messages."""
    return _KINDS[kind][1]


def is_list(type: pa.DataType) -> bool:
    """Tell whether a type is a list of any kind."""
    return types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type)


def is_string(type: pa.DataType) -> bool:
    """Tell whether a column holds texts, and neither a dictionary of them nor a view."""
    return types.is_string(type) or types.is_large_string(type)


def _is_text(type: pa.DataType) -> bool:
    if types.is_dictionary(type):
        type = type.value_type
    return is_string(type) or types.is_string_view(type)


def is_bytes(type: pa.DataType) -> bool:
    """Tell whether a column holds bytes alone."""
    return types.is_binary(type) or types.is_large_binary(type) or types.is_binary_view(type)


def is_number(type: pa.DataType) -> bool:
    """Tell whether a column holds numbers; truth values are none."""
    return types.is_integer(type) or types.is_floating(type) or types.is_decimal(type)


def _is_labels(type: pa.DataType) -> bool:
    return _is_text(type) or _is_words(type)


def _is_record(type: pa.DataType) -> bool:
    return types.is_struct(type) or types.is_map(type) or _is_text(type)


def _is_words(type: pa.DataType) -> bool:
    return is_list(type) and _is_text(type.value_type)


def _is_media(type: pa.DataType) -> bool:
    """Tell whether values can be media.

    They are encoded bytes, a path or URL, both in a struct, as datasets has them, or decoded audio.
    """
    if not types.is_struct(type):
        return is_bytes(type) or _is_text(type)
    fields = {field.name: field.type for field in type}
    if "bytes" in fields and not types.is_null(fields["bytes"]):
        return is_bytes(fields["bytes"])
    if "array" in fields and "sampling_rate" in fields:
        array = fields["array"]
        return _is_samples(array) or (is_list(array) and _is_samples(array.value_type))
    return "path" in fields and _is_text(fields["path"])


def _is_numbers(type: pa.DataType) -> bool:
    return is_list(type) and is_number(type.value_type)


def _is_samples(type: pa.DataType) -> bool:
    """Tell whether a list can be a recording: what 64 bits hold is not known to be sound."""
    return is_list(type) and (types.is_floating(type.value_type) or type.value_type in SAMPLES)


def _is_boxes(type: pa.DataType) -> bool:
    return is_list(type) and _is_numbers(type.value_type)


def _is_messages(type: pa.DataType) -> bool:
    if not is_list(type):
        return _is_text(type)
    inner = type.value_type
    if _is_text(inner):  # a JSON text each, as `datasets` stores messages of differing keys
        return True
    return types.is_struct(inner) and {"role", "content"} <= {field.name for field in inner}


def _is_table(type: pa.DataType) -> bool:
    return types.is_struct(type) or is_list(type) or types.is_map(type) or _is_text(type)


# Whole numbers that recordings are made of: files of 8, 16 and 32 bits.
SAMPLES = (pa.uint8(), pa.int16(), pa.int32())

_MEDIA = "{} (bytes, a path or URL, or a struct of bytes and path)"

_KINDS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "text": (_is_text, "text"),
    "texts": (_is_labels, "a text, or a list of texts"),
    "labels": (_is_labels, "a list of texts"),
    "flag": (types.is_boolean, "true or false"),
    "number": (is_number, "a number"),
    "words": (_is_words, "a list of words"),
    "boxes": (_is_boxes, "a list of boxes, each a list of numbers"),
    "messages": (
        _is_messages,
        "a list of messages (structs of role and content), or that, or each of them, as JSON",
    ),
    "table": (_is_table, "a table (a struct or list), or that as JSON"),
    "image": (_is_media, _MEDIA.format("an image")),
    "audio": (
        _is_media,
        _MEDIA.format("audio")
        + ", or a struct of array (floats, or samples of type uint8, int16 or int32) and "
        "sampling_rate",
    ),
    "video": (_is_media, _MEDIA.format("a video")),
    "record": (_is_record, "a record (a struct or map), or that as JSON"),
    "any": (lambda type: True, "anything"),
}
