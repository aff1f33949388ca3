"""Columns that are bound where rows are first seen."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pipemill.pipelines.bind_columns import bind_columns
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from ray.data.extensions import ArrowTensorType

from pipemill.errors import ConfigError


def bind(task: str, columns: dict[str, pa.DataType], parameters=None, own=False, **mapping):
    load = LoadTask(
        task=task,
        model=Model(path="m"),
        columns=(),
        parameters=json.dumps(parameters or {}),
        own=own,
    )
    bound = bind_columns(load, mapping, pa.schema(columns))
    assert isinstance(bound.load, LoadTask)
    return dict(bound.load.columns), bound.columns


def test_columns_of_the_task_are_found_and_mapped():
    rows = {"id": pa.int64(), "text": pa.string(), "body": pa.string()}
    assert bind("text-classification", rows)[0] == {"text": "text"}
    assert bind("text-classification", rows, text="body")[0] == {"text": "body"}
    with pytest.raises(ConfigError, match="no column 'bod' in the input .*did you mean 'body'"):
        bind("text-classification", rows, text="bod")
    with pytest.raises(ConfigError, match="reads a column 'text', which the input does not have"):
        bind("text-classification", {"body": pa.string()})


def test_a_column_of_nulls_has_the_type_that_the_task_reads():
    rows = {"text": pa.null(), "candidate_labels": pa.null()}
    columns, schema = bind("zero-shot-classification", rows)
    assert columns == {"text": "text", "candidate_labels": "candidate_labels"}
    assert schema.field("text").type == pa.string()
    with pytest.raises(ConfigError, match="'text' is int64, but text-classification reads text"):
        bind("text-classification", {"text": pa.int64()})


def test_images_may_be_tensors():
    _, schema = bind("image-classification", {"image": ArrowTensorType((4, 4, 3), pa.uint8())})
    assert schema == pa.schema([("image", pa.binary())])


def test_a_pipeline_of_the_user_reads_the_usual_or_the_named_column():
    rows = {"text": pa.string(), "other": pa.string()}
    assert bind("mine", rows, own=True)[0] == {"text": "text"}
    assert bind("mine", rows, own=True, sentence="other")[0] == {"sentence": "other"}
    with pytest.raises(ConfigError, match="which column goes into the pipeline of mine"):
        bind("mine", {"a": pa.string(), "b": pa.string()}, own=True)
