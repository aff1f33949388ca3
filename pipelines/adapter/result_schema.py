"""Find and fill the columns of a task that only a sample of answers shows, or the job declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pyarrow as pa
from pipemill.actors.columns import is_list
from pipemill.actors.sources.schemas.file_schemas import map_types

from ..pipeline_task import PipelineTask, Values

# In transformers' answers, but in no column of ours: it is the input, or two columns.
_NO_COLUMNS = {"sequence", "timestamp"}
# What a sample has shown, noted in the schema: the task's own columns hold all of the answers, or
# only a column of the sample's type does.
COLUMNS_OF_TASK, COLUMNS_OF_SAMPLE = b"task", b"sample"
_DECLARE = "declare the columns in output.schema (with a new output) to have room for it"
_CHANGE = "change output.schema (with a new output) to have room for it"


def can_own_columns_hold(
    task: PipelineTask, answers: list[Any], schema: pa.Schema, given: Values
) -> bool:
    """Tell whether the columns that the task adds by itself hold all of these answers.

    given: the parameters.
    """
    known = _list_field_names(schema) | _NO_COLUMNS
    known |= {name.removesuffix("s") for name in known}
    try:
        pa.Table.from_pylist([task.record(answer, given) for answer in answers], schema=schema)
    except Exception:
        return False
    return all(_names(answer) <= known for answer in answers)


def infer_result_schema(answers: list[Any]) -> pa.Schema:
    """Return one column `result` of the type that fits all. Raise ValueError if none does."""
    try:
        type = pa.array([simplify_answer(answer) for answer in answers]).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the answers have no type in common ({error}): declare the columns in output.schema"
        ) from error
    if _has_empty_struct(type):
        raise ValueError(
            "the first answers hold mappings without keys, whose columns are unknown: declare them "
            "in output.schema"
        )
    # What was always null becomes text.
    filled = map_types(type, lambda one: pa.string() if pa.types.is_null(one) else one)
    return pa.schema([("result", filled)])


def _has_empty_struct(type: pa.DataType) -> bool:
    if pa.types.is_struct(type):
        return not len(type) or any(_has_empty_struct(field.type) for field in type)
    return is_list(type) and _has_empty_struct(type.value_type)


def as_columns(answers: list[Any], schema: pa.Schema, sampled: bool) -> pa.Table:
    """Return the answers as a table of that schema, declared or seen in a sample.

    A declared schema is a choice of names: what else an answer holds is left out.

    Raises:
        ValueError: an answer that does not fit, or that holds more than the sample showed.
    """
    records = [shape_answer(answer, schema) for answer in answers]
    advice = _DECLARE if sampled else _CHANGE
    if not sampled:
        for record in records:
            _check_names(record, pa.struct(list(schema)), "the answer")
    try:
        table = pa.Table.from_pylist(records, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(
            f"the answer does not fit {_describe(schema)} ({error}); {advice}"
        ) from None
    unseen = _names(records) - _list_field_names(schema) if sampled else set()
    if unseen:
        raise ValueError(
            f"the answer has {', '.join(sorted(unseen))}, which {_describe(schema)} does not have; "
            f"{advice}"
        )
    return table


def tabulate_records(records: list[Values], schema: pa.Schema) -> pa.Table:
    """Return records as a table, with text in place of numbers where the schema has text."""
    try:
        return pa.Table.from_pylist(records, schema=schema)
    except pa.ArrowTypeError:  # a model may call its labels 0 and 1
        texts = _replace_numbers(records, pa.list_(pa.struct(list(schema))))
        return pa.Table.from_pylist(texts, schema=schema)


def _replace_numbers(value: Any, type: pa.DataType) -> Any:
    if pa.types.is_string(type) and isinstance(value, int | float):
        return str(value)
    if pa.types.is_list(type) and isinstance(value, list):
        return [_replace_numbers(item, type.value_type) for item in value]
    if pa.types.is_struct(type) and isinstance(value, dict):
        names = {field.name: field.type for field in type}
        return {k: _replace_numbers(v, names[k]) if k in names else v for k, v in value.items()}
    return value


def shape_answer(answer: Any, schema: pa.Schema) -> Values:
    """Return the answer under the names of a schema. Raise ValueError if it has none of them."""
    value = simplify_answer(answer)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0] if schema.names != ["result"] else value
    if isinstance(value, dict) and set(schema.names) & set(value):
        return {name: value.get(name) for name in schema.names}
    if len(schema) == 1:
        return {schema.names[0]: value}
    raise ValueError(f"the answer has none of the columns {', '.join(schema.names)}: {value!r}")


def _check_names(value: Any, type: pa.DataType, place: str) -> None:
    """Raise ValueError where a mapping has no name of its struct: all of it would be null."""
    if is_list(type) and isinstance(value, list):
        for item in value:
            _check_names(item, type.value_type, place)
    elif pa.types.is_struct(type) and isinstance(value, Mapping):
        names = [field.name for field in type]
        if value and not set(names) & set(value):
            raise ValueError(
                f"{place} has none of {', '.join(names)}, but {', '.join(value)}; {_CHANGE}"
            )
        for field in type:
            _check_names(value.get(field.name), field.type, f"{field.name!r} of the answer")


def simplify_answer(value: Any) -> Any:
    """Return a value that Arrow can hold: arrays and tensors as lists, pictures as PNG.

    Data classes and named tuples become mappings.
    """
    if is_dataclass(value) and not isinstance(value, type | Mapping):
        return {one.name: simplify_answer(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): simplify_answer(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [simplify_answer(inner) for inner in value]
    if hasattr(value, "detach"):
        return (
            value.detach().float().cpu().tolist() if value.is_floating_point() else value.tolist()
        )
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "getbands"):
        from ..media import encode_png

        return encode_png(value)
    return value


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _names(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set(value).union(*(_names(inner) for inner in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_names(inner) for inner in value))
    return set()


def _list_field_names(type: Any) -> set[str]:
    if isinstance(type, pa.Schema) or pa.types.is_struct(type):
        return {field.name for field in type}.union(*(_list_field_names(f.type) for f in type))
    return _list_field_names(type.value_type) if pa.types.is_list(type) else set()
