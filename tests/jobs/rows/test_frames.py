"""Frames and tables are read like the same rows in a Parquet file."""

from __future__ import annotations

import datetime
import io
import math
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pipemill.jobs.rows.content_digest import digest_tables

import pipemill

UTC = datetime.UTC
TABLE = pa.table(
    {
        "text": ["a mill", None, "", "the red river"] * 700,
        "count": pa.array([1, None, 2**53 + 1, 4] * 700, pa.int64()),
        "label": pa.array(["x", "y", "x", None] * 700).dictionary_encode(),
        "at": pa.array([datetime.datetime(2026, 1, 2, 3, tzinfo=UTC), None] * 1400),
        "raw": [b"\0\xff", b"", None, b"b"] * 700,
        "tags": [["a", "b"], [], None, ["c"]] * 700,
        "where": [{"x": 1.5, "y": None}, {"x": None, "y": "s"}] * 1400,
    }
)


def of_pandas():
    frame = TABLE.to_pandas()
    frame["count"] = pd.array(TABLE["count"].to_pylist(), "Int64")
    return frame


def polars():
    return pytest.importorskip("polars")


KINDS = {
    "pandas.DataFrame": of_pandas,
    "pandas with Arrow types": lambda: TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    "polars.DataFrame": lambda: polars().from_arrow(TABLE),
    "polars.LazyFrame": lambda: polars().from_arrow(TABLE).lazy(),
    "pyarrow.Table": lambda: TABLE,
    "pyarrow.RecordBatch": lambda: TABLE.combine_chunks().to_batches()[0],
    "pyarrow.RecordBatchReader": lambda: TABLE.to_reader(max_chunksize=100),
    "pyarrow.dataset.Dataset": lambda: ds.dataset(TABLE),
    "pyarrow.dataset.Scanner": lambda: ds.dataset(TABLE).scanner(batch_size=100),
    "pyarrow.Array of structs": lambda: TABLE.to_struct_array(),
    "what exports an Arrow stream": lambda: Exporter(),
    "list of dicts": TABLE.to_pylist,
    "generator of dicts": lambda: (row for row in TABLE.to_pylist()),
}


class Exporter:
    def __arrow_c_stream__(self, requested_schema=None):
        return TABLE.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_like_parquet(kind, job, tmp_path):
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    outputs = []
    for number, rows in enumerate([str(tmp_path / "rows.parquet"), KINDS[kind]()]):
        report = pipemill.run(**job(rows, f"out-{number}", settings=["output.rows_per_part=1500"]))
        assert (report.rows, report.dead) == (2800, 700)
        found = pipemill.read(report.output).to_table()
        letters = pipemill.read(report.output, dead_letters=True).to_table()
        outputs.append((found.to_pylist(), letters.drop_columns(["split"]).to_pylist()))
    for ours, theirs in zip(*outputs, strict=True):
        names = set(theirs[0]) if theirs else set()
        assert [{k: row[k] for k in names} for row in ours] == theirs


def test_equal_content_goes_on_and_other_content_is_refused(job):
    frame = of_pandas()[:30]
    assert pipemill.run(**job(frame)).added["rows"] == 30
    assert pipemill.run(**job(frame.copy())).added["rows"] == 0
    changed = frame.copy()
    changed.loc[29, "text"] = "another"
    for other in (changed, frame[:29], frame.rename(columns={"count": "n"})):
        with pytest.raises(pipemill.ConfigError, match=r"another job: input.dataset \('"):
            pipemill.run(**job(other))


@pytest.mark.parametrize(
    ("kind", "least", "more"),
    [
        (pa.time64("ns"), 38_280_250_583_962, 38_280_250_583_963),
        (pa.list_(pa.timestamp("us"), 1), [2**62], [2**62 + 1]),
        (pa.map_(pa.string(), pa.duration("s")), [("a", 2**50)], [("a", 2**50 + 1)]),
    ],
    ids=str,
)
def test_a_digest_takes_times_that_python_has_not(kind, least, more):
    columns = (pa.array([value, None], kind) for value in (least, more))
    one, other = (digest_tables([pa.table({"a": column})]) for column in columns)
    assert one != other


def test_a_digest_is_of_the_values_and_not_of_their_layout():
    whole = digest_tables([TABLE])
    chunks = pa.concat_tables([TABLE.slice(i, 7) for i in range(0, 2800, 7)])
    garbage = pa.table(TABLE).set_column(
        1,
        "count",
        pa.Array.from_buffers(
            pa.int64(),
            2800,
            [
                TABLE["count"].chunk(0).buffers()[0],
                pa.py_buffer(
                    np.where(TABLE["count"].is_null(), 77, TABLE["count"].fill_null(0)).tobytes()
                ),
            ],
        ),
    )
    assert garbage.equals(TABLE)
    for same in (chunks, garbage, TABLE.take(pa.array(range(2800)))):
        assert digest_tables([same]) == whole
    for row in (0, 1399, 2799):
        for name in TABLE.column_names:
            values = TABLE[name].to_pylist()
            values[row] = None if values[row] is not None else values[row - 1] or values[row - 2]
            index = TABLE.column_names.index(name)
            column = pa.array(values, TABLE[name].type)
            assert digest_tables([TABLE.set_column(index, name, column)]) != whole, (name, row)
    assert digest_tables([pa.table({"a": [1, None]})]) != digest_tables(
        [pa.table({"a": [None, 1]})]
    )
    # The same bytes, cut at other places.
    assert digest_tables([pa.table({"a": ["ab", "c"]})]) != digest_tables(
        [pa.table({"a": ["a", "bc"]})]
    )


def test_images_and_arrays_in_cells_are_kept(answers):
    image = Image.new("RGB", (3, 2), (9, 8, 7))
    pixels = np.full((2, 3, 3), 5, np.uint8)
    frame = pd.DataFrame(
        {
            "text": ["a", "b"],
            "image": [image, None],
            "pixels": [pixels, pixels[:, :, 0]],
            "audio": [{"array": np.zeros(4, np.float32), "sampling_rate": 8000}] * 2,
            "vector": [np.arange(3.0), np.arange(1.0)],
            "matrix": [np.ones((2, 2)), None],
        }
    )
    found = answers(frame).to_pylist()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found[0]["image"]))), np.asarray(image))
    assert found[1]["image"] is None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found[0]["pixels"]))), pixels)
    assert found[0]["audio"] == {"array": [0.0] * 4, "sampling_rate": 8000}
    assert [row["vector"] for row in found] == [[0, 1, 2], [0]]
    assert [row["matrix"] for row in found] == [[[1, 1], [1, 1]], None]


def test_a_series_of_polars_is_a_column(answers):
    pl = polars()
    assert answers(pl.Series(["a", "b"]))["text"].to_pylist() == ["a", "b"]
    named = answers(pl.Series("body", ["a"]), "named", settings=["input.columns.text=body"])
    assert named["body"].to_pylist() == ["a"]


def test_arrays_of_arrow_are_texts(answers):
    for texts in (pa.array(["a", "b"]), pa.chunked_array([["a"], ["b"]])):
        assert answers(texts, type(texts).__name__)["text"].to_pylist() == ["a", "b"]


class Numbered:
    """Like a dataset of torch."""

    def __len__(self):
        return 1

    def __getitem__(self, number):
        raise IndexError


def test_what_is_no_rows_is_said_with_what_to_do(job):
    def generate():
        yield {"text": "a"}

    for given, message in (
        ({"a": pd.Series(["x"]), "b": pd.Series(["y"])}, r"a dict of lists \(a, b\): give rows"),
        (Numbered(), r"a Numbered: give its rows, \(rows\[i\] for i in range\(len\(rows\)\)\)$"),
        (np.array(["a"]), r"input is a ndarray: give rows as a list, list\(…\)$"),
        ({"text": np.array(["a"])}, r"input is a dict of lists \(text\): give rows as a list of"),
        (generate, "'input' must hold keys, not a function: call it, and give what it returns"),
        (Exporter, "'input' must hold keys, not a type$"),
        (datasets.DatasetDict(), "input is a DatasetDict that holds nothing"),
    ):
        with pytest.raises(pipemill.ConfigError, match=message):
            pipemill.run(**job(given))


def test_an_index_with_a_name_is_a_column(answers):
    frame = pd.DataFrame({"text": ["a", "b"]}, index=pd.Index([7, 9], name="id"))
    assert answers(frame, "named")["id"].to_pylist() == [7, 9]
    assert "index" not in answers(frame.rename_axis(None), "unnamed").column_names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({0: ["a"]}, "a column of the pandas.DataFrame is called 0, which is not a text"),
        ({"mixed": [1, "x"]}, r"column 'mixed', rows 0 to 1, .*of int \(row 0\), str \(row 1\)"),
        ({"half": [["\ud800"], ["x"]]}, "column 'half', rows 0 to 1, can't be stored"),
        ({"any": [object(), None]}, "column 'any', .*of object"),
        (
            {"month": pd.period_range("2026", periods=2, freq="M")},
            "column 'month' of a pandas.DataFrame has the type .*period",
        ),
        (
            {"range": pd.Categorical(pd.interval_range(0, 2))},
            "column 'range' of a pandas.DataFrame has the type .*interval.*, which can't be stored",
        ),
        (
            {"time": pd.Series([pd.Timestamp(0), pd.Timestamp(0, tz="UTC")], dtype=object)},
            "column 'time', rows 0 to 1, .* partly times with a time zone and partly without",
        ),
        ({"z": [1j, 2j]}, "column 'z' of the pandas.DataFrame is complex128, which can't be"),
    ],
)
def test_what_can_not_be_kept_is_refused_by_its_column(columns, message, job):
    with pytest.raises(pipemill.ConfigError, match=rf"'input.path' in the job: {message}"):
        pipemill.run(**job(pd.DataFrame({"text": ["a", "b"][: len(next(iter(columns.values())))],
                                         **columns})))  # fmt: skip


def test_a_type_that_parquet_lacks_is_named_by_its_column(job):
    odd = pa.table({"text": ["a"], "span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(pipemill.ConfigError, match="column 'span' is month_day_nano_interval, whi"):
        pipemill.run(**job(odd))


def test_two_columns_of_one_name_and_an_index_like_a_column_are_refused(job):
    twice = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    named = pd.DataFrame({"text": ["a"]}, index=pd.Index(["b"], name="text"))
    for frame in (twice, named, pa.table([["a"], ["b"]], names=["text", "text"])):
        with pytest.raises(pipemill.ConfigError, match="has two columns named 'text': rename one"):
            pipemill.run(**job(frame))


def test_a_polars_column_of_objects_is_kept_or_named(answers, job):
    pl = polars()
    column = pl.Series("o", [{"a": 1}, {"a": 2}], dtype=pl.Object)
    frame = pl.DataFrame({"text": ["a", "b"]}).with_columns(column)
    assert answers(frame)["o"].to_pylist() == [{"a": 1}, {"a": 2}]
    odd = frame.with_columns(o=pl.Series([1, "x"], dtype=pl.Object))
    with pytest.raises(pipemill.ConfigError, match="column 'o', rows 0 to 1, can't be stored"):
        pipemill.run(**job(odd))


def test_a_reader_that_was_read_is_refused(job):
    reader = TABLE.slice(0, 1).to_reader()
    pipemill.run(**job(reader, "first"))
    with pytest.raises(pipemill.ConfigError, match="RecordBatchReader was read from before"):
        pipemill.run(**job(reader, "second"))


def test_what_fails_while_it_is_read_is_one_line(job, tmp_path, answers):
    pl = polars()
    pq.write_table(TABLE, tmp_path / "part.parquet")
    dataset = ds.dataset(tmp_path / "part.parquet")
    lazy = pl.scan_parquet(tmp_path / "part.parquet")
    (tmp_path / "part.parquet").write_bytes(b"PAR1" * 100)

    def read():
        yield TABLE.to_batches()[0]
        raise OSError("the disk is gone")

    broken = pa.RecordBatchReader.from_batches(TABLE.schema, read())
    for rows, error, said in [
        (lazy, pipemill.ConfigError, "the polars.LazyFrame can't be collected: "),
        (dataset, pipemill.RunError, "a pyarrow.dataset.Dataset failed after 0 rows: "),
        (broken, pipemill.RunError, "RecordBatchReader failed after .* rows: .*the disk is gone"),
    ]:
        with pytest.raises(error, match=said) as caught:
            pipemill.run(**job(rows))
        assert "\n" not in str(caught.value)
    assert len(answers(TABLE.slice(0, 1))) == 1  # nothing was left in the way


def test_nan_is_missing_in_pandas_and_a_number_elsewhere(answers):
    pl = polars()
    values = {"text": ["a", "b"], "n": [float("nan"), 1.5]}
    assert answers(pd.DataFrame(values), "pandas")["n"].to_pylist() == [None, 1.5]
    for name, frame in (("polars", pl.DataFrame(values)), ("arrow", pa.table(values))):
        assert math.isnan(answers(frame, name)["n"][0].as_py())


def test_a_frame_without_rows_has_columns(answers):
    found = answers(TABLE.slice(0, 0).to_pandas()[["text"]].astype("string"))
    assert found.num_rows == 0
    assert found.column_names == ["text", "again", "length"]


def test_libraries_of_frames_are_not_imported(tmp_path):
    code = (
        "import sys\n"
        "from pipemill.jobs import prepare\n"
        "from pipemill.jobs.config.load import build_job\n"
        "build_job(None, [], {}, dict(task='t', model='m', input='i', output='o'))\n"
        "print({'datasets', 'pandas', 'polars', 'ray', 'deltalake', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
