"""Which of the user's columns a task reads, and what is kept."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pipemill.actors.sources.schemas.json_schema import SeenColumns
from pipemill.actors.sources.schemas.media_columns import make_files_column, make_member_column
from pipemill.actors.task import Column
from pipemill.jobs.config.job import Job
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.columns import list_kept_columns, note_columns
from pipemill.jobs.planning.prepared_job import _read_input_schema
from pipemill.pipelines.task_columns import resolve_columns

from pipemill.errors import ConfigError

TEXT, BYTES, NUMBERS = pa.string(), pa.binary(), pa.list_(pa.float32())
IMAGE = Column(name="image", kind="image")
FITTING = {
    "text": [TEXT, pa.large_string(), pa.dictionary(pa.int32(), TEXT)],
    "labels": [TEXT, pa.list_(TEXT)],
    "texts": [TEXT, pa.list_(TEXT)],
    "record": [TEXT, pa.struct({"a": TEXT}), pa.map_(TEXT, TEXT)],
    "flag": [pa.bool_()],
    "number": [pa.int8(), pa.uint64(), pa.float16(), pa.float64()],
    "words": [pa.list_(TEXT), pa.large_list(pa.large_string())],
    "boxes": [pa.list_(pa.list_(pa.int64())), pa.list_(pa.list_(pa.float32(), 4))],
    "messages": [TEXT, pa.list_(TEXT), pa.list_(pa.struct({"role": TEXT, "content": TEXT}))],
    "table": [TEXT, pa.struct({"a": TEXT}), pa.list_(pa.struct({"a": TEXT}))],
    "image": [
        BYTES,
        pa.large_binary(),
        TEXT,
        pa.struct({"bytes": BYTES, "path": TEXT}),
        pa.struct({"bytes": pa.null(), "path": TEXT}),
    ],
    "audio": [
        BYTES,
        pa.struct({"path": TEXT, "bytes": pa.large_binary()}),
        pa.struct({"array": NUMBERS, "sampling_rate": pa.int64()}),
        pa.struct({"array": pa.list_(pa.int16()), "sampling_rate": pa.int64()}),
        pa.struct({"array": pa.list_(NUMBERS), "path": TEXT, "sampling_rate": pa.int64()}),
    ],
    "video": [pa.large_binary(), TEXT],
    "any": [pa.null(), pa.map_(TEXT, TEXT), pa.int8()],
}
UNFIT = {
    "text": [pa.int64(), BYTES],
    "labels": [pa.int64(), pa.list_(pa.int64())],
    "texts": [pa.int64(), pa.list_(pa.int64()), pa.struct({"a": TEXT})],
    "record": [pa.int64(), pa.list_(TEXT)],
    "flag": [pa.int8()],
    "number": [TEXT, pa.bool_()],
    "words": [TEXT, pa.list_(pa.int64())],
    "boxes": [NUMBERS, TEXT],
    "messages": [pa.list_(pa.int64()), pa.struct({"role": TEXT, "content": TEXT})],
    "table": [pa.int64()],
    "image": [pa.int64(), pa.struct({"a": TEXT}), pa.list_(BYTES)],
    "audio": [
        pa.struct({"array": TEXT, "sampling_rate": pa.int64()}),
        pa.struct({"array": pa.list_(pa.int64()), "sampling_rate": pa.int64()}),
        pa.struct({"array": TEXT}),
    ],
    "video": [pa.struct({"bytes": TEXT})],
}


def resolve(columns, schema, mapping=None, parameters=None):
    return resolve_columns("the-task", columns, mapping or {}, parameters or {}, schema)


@pytest.mark.parametrize("kind", FITTING)
def test_the_types_that_go_with_a_kind(kind):
    column = Column(name="x", kind=kind)
    for type in FITTING[kind]:
        assert resolve((column,), pa.schema([("x", type)])) == {"x": "x"}
    for type in UNFIT.get(kind, []):
        with pytest.raises(ConfigError, match=r"column 'x' is .*, but the-task reads .* as 'x'"):
            resolve((column,), pa.schema([("x", type)]))


def test_a_media_input_finds_the_bytes_of_files_unless_told_otherwise():
    schema = pa.schema([("path", TEXT), make_files_column("bytes")])
    assert resolve((IMAGE,), schema) == {"image": "bytes"}
    assert resolve((IMAGE,), schema, {"image": "path"}) == {"image": "path"}
    assert resolve((IMAGE,), schema.append(pa.field("image", BYTES))) == {"image": "image"}
    with pytest.raises(ConfigError, match="reads a column 'text', which the input does not have"):
        resolve((Column(name="text", kind="text"),), schema)
    with pytest.raises(ConfigError, match=r"no column 'pth' .*did you mean 'path'"):
        resolve((IMAGE,), schema, {"image": "pth"})
    with pytest.raises(ConfigError, match=r"\(input.columns.image\); columns: path, bytes$"):
        resolve((IMAGE,), schema, {"image": "other"})  # they are named once


def test_files_of_another_kind_and_a_second_image_are_not_taken_for_the_first():
    schema = pa.schema([("path", TEXT), make_files_column("bytes", ["image"])])
    pair = Column(name="image_pair", kind="image")
    audio = Column(name="audio", kind="audio", required=False)
    assert resolve((IMAGE, audio), schema) == {"image": "bytes"}
    with pytest.raises(ConfigError, match="reads a column 'image_pair'"):
        resolve((IMAGE, pair), schema)


def test_an_optional_column_that_is_null_everywhere_is_none():
    schema = pa.schema([("text", TEXT), ("text_pair", pa.null())])
    text = Column(name="text", kind="text")
    pair = Column(name="text_pair", kind="text", required=False)
    assert resolve((text, pair), schema) == {"text": "text"}
    assert resolve((text, pair), schema, {"text_pair": "text_pair"}) == {"text": "text"}
    with pytest.raises(ConfigError, match="column 'text_pair' is null"):
        resolve((text,), schema, {"text": "text_pair"})


def test_a_media_input_finds_the_one_member_of_its_kind():
    schema = pa.schema(
        [
            ("__key__", TEXT),
            make_files_column("jpg"),
            make_files_column("seg.png"),
            make_files_column("wav"),
        ]
    )
    assert resolve((Column(name="audio", kind="audio"),), schema) == {"audio": "wav"}
    with pytest.raises(ConfigError, match=r"several \(jpg, seg\.png\): name one with --column"):
        resolve((IMAGE,), schema)
    assert resolve((IMAGE,), schema, {"image": "seg.png"}) == {"image": "seg.png"}
    with pytest.raises(ConfigError, match="reads a column 'video'"):
        resolve((Column(name="video", kind="video"),), schema)


def test_whole_files_are_kept_only_by_name():
    schema = pa.schema([("path", TEXT), make_files_column("bytes"), ("thumbnail", BYTES)])
    assert list_kept_columns("all", schema) == ["path", "thumbnail"]
    assert list_kept_columns(["bytes", "path"], schema) == ["path", "bytes"]


def test_rows_in_a_list_of_one_object_are_named_with_what_to_do():
    text = (Column(name="text", kind="text"),)
    rows = pa.list_(pa.struct({"text": TEXT, "id": pa.int64()}))
    deep = pa.list_(pa.struct({"title": TEXT, "paragraphs": rows}))
    chat = pa.list_(pa.struct({"role": TEXT, "content": TEXT}))
    images = pa.list_(pa.struct({"bytes": pa.binary(), "path": TEXT}))
    named = "If the objects in {} are the rows, write them one a line: jq -c '{}' FILE > rows.jsonl"
    for fields, mapping, where in (
        ({"version": TEXT, "data": rows}, {}, [".data[]"]),
        ({"data": deep}, {}, [".data[].paragraphs[]"]),
        ({"train": rows, "test": rows}, {}, [".train[]", ".test[]"]),
        ({"data": rows, "other": chat}, {"text": "id"}, [".data[]"]),
        ({"data": rows}, {"text": "body"}, [".data[]"]),
        ({"result": pa.struct({"the rows": rows})}, {}, ['.result."the rows"[]']),
        ({"data": deep}, {"text": "body"}, [".data[]"]),
        ({"messages": chat}, {}, []),
        ({"images": images}, {}, []),
        ({"data": rows, "other": rows}, {"text": "body"}, []),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(text, pa.schema(fields), mapping)
        said = named.format(" and ".join(where), ", ".join(where))
        assert (said in str(caught.value)) == bool(where), fields
        assert where or "jq" not in str(caught.value)


@pytest.mark.parametrize("rows", [3, 300])  # of more than 256 keys an object is JSON text
def test_a_frame_that_pandas_wrote_as_columns_is_no_row_of_text(rows):
    seen = SeenColumns()
    seen.add([{"text": {str(i): "a mill" for i in range(rows)}}], any_long=False)
    schema = seen.schema({"text": "text"})
    with pytest.raises(
        ConfigError, match=r"column 'text' is .{,220} reads text .*orient='records'"
    ):
        resolve((Column(name="text", kind="text"),), schema)
    optional = Column(name="text", kind="text", required=False, parameter=True)
    assert resolve((optional,), schema) == {}
    by_index = pa.schema([(str(i), pa.struct({"text": TEXT})) for i in range(rows)])
    with pytest.raises(ConfigError, match=r"reads a column 'text'.*orient='records'"):
        resolve((Column(name="text", kind="text"),), by_index)


TARGETS = Column(name="targets", kind="texts", required=False, parameter=True)
TOP_K = Column(name="top_k", kind="number", required=False, parameter=True)


def test_a_column_that_has_only_the_name_of_a_parameter_is_left_alone():
    inputs = (Column(name="text", kind="text"), TARGETS, TOP_K)
    schema = pa.schema([("text", TEXT), ("targets", pa.list_(pa.int64())), ("top_k", pa.int32())])
    assert resolve(inputs, schema) == {"text": "text", "top_k": "top_k"}
    targets, top_k = note_columns("the-task", inputs, {}, {}, schema)
    assert targets == (
        "column 'targets' is list<item: int64> and is not read: the-task reads a text, or a list "
        "of texts as 'targets'"
    )
    assert "'top_k' is read as the parameter top_k of each row" in top_k
    assert "--column top_k= (input.columns: {top_k: null})" in top_k
    # What the job says itself is no surprise.
    mapping, parameters = {"top_k": "top_k"}, {"targets": ["a"]}
    assert note_columns("the-task", inputs, mapping, parameters, schema) == ()
    assert note_columns("the-task", inputs, {"top_k": None}, parameters, schema) == ()


def test_a_column_is_said_not_to_be_read_where_the_job_gives_its_parameter():
    labels = Column(name="labels", kind="labels", parameter=True)
    inputs = (Column(name="text", kind="text"), TARGETS, TOP_K, labels)
    schema = pa.schema([("text", TEXT), ("top_k", pa.int32()), ("labels", TEXT)])
    assert note_columns("the-task", inputs, {}, {"top_k": 3, "labels": ["a"]}, schema) == (
        "column 'top_k' is not read: parameters.top_k is that of all rows",
        "column 'labels' is not read: parameters.labels is that of all rows",
    )
    assert note_columns("the-task", inputs, {"top_k": None}, {"top_k": 3}, schema) == ()


def test_a_column_that_is_mapped_must_be_of_the_right_type_and_is_told_the_way_out():
    inputs = (Column(name="text", kind="text"), TARGETS)
    schema = pa.schema([("text", TEXT), ("targets", pa.int64())])
    way = r"--column targets= \(input.columns: {targets: null}\); or set parameters.targets"
    with pytest.raises(ConfigError, match=f"column 'targets' is int64.*{way}"):
        resolve(inputs, schema, {"targets": "targets"})


def test_a_column_may_be_left_out():
    inputs = (Column(name="text", kind="text"), TOP_K)
    schema = pa.schema([("text", TEXT), ("top_k", pa.int32())])
    assert resolve(inputs, schema, {"top_k": None}) == {"text": "text"}
    with pytest.raises(ConfigError, match="reads a column 'text', which input.columns leaves out"):
        resolve(inputs, schema, {"text": None})


def test_csv_with_another_delimiter_is_said():
    said = "columns: text;n. If that is CSV divided by ';': set input.delimiter to ';'. Name one"
    with pytest.raises(ConfigError, match=said):
        resolve((Column(name="text", kind="text"),), pa.schema([("text;n", TEXT)]))
    with pytest.raises(ConfigError, match="columns: a;b, c. Name one with"):
        resolve((Column(name="text", kind="text"),), pa.schema([("a;b", TEXT), ("c", TEXT)]))


def test_one_of_several_tasks_names_several_members_of_a_shard():
    shards = pa.schema([make_member_column(end, alone=False) for end in ("jpg", "png")])
    entry = {"task": "image-classification", "model": "m", "columns": {"image": "jpg;png"}}
    job = Job(tasks=[entry], input="in", output="out")
    assert "jpg;png" in _read_input_schema(job, Plan("webdataset", shards)).names


def test_a_field_of_a_struct_is_no_column():
    text = (Column(name="text", kind="text"),)
    schema = pa.schema({"post": pa.struct({"body": TEXT})})
    with pytest.raises(ConfigError, match="struct 'post' can't be read: make 'body' a column"):
        resolve_columns("fill-mask", text, {"text": "post.body"}, {}, schema)


def test_names_that_look_like_others_are_shown_with_escapes():
    text = (Column(name="text", kind="text"),)
    odd = pa.schema([(name, TEXT) for name in (" text", "cafe\u0301", "", "a\ufeff", "plain é")])
    shown = r"columns: ' text', 'cafe\u0301', '', 'a\ufeff', plain é"
    for mapping, said in (
        ({}, f"{shown}. Name one"),
        ({"text": "café"}, rf"did you mean 'cafe\u0301'? ({shown})"),
        ({"text": "xyz"}, shown),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(text, odd, mapping)
        assert said in str(caught.value)
    assert resolve(text, odd, {"text": ""}) == {"text": ""}
