"""Delta Lake, Iceberg and Lance tables: the snapshot that a run began with."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import pipemill

TABLE = pa.table(
    {
        "text": ["a", "b", "c", "d"],
        "year": ["2024", "2024", "01", "01"],
        "day": [datetime.date(2024, 1, 1)] * 4,
        "n": pa.array([1, 2, None, 4], pa.int64()),
    }
)
DELETED = "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg0rr91"
LEFT = [("a", "2024", 1), ("c", "01", None), ("d", "01", 4)]


class Delta:
    """A table with partitions, of whose rows one was deleted."""

    module = "deltalake"
    extra = "delta"

    def __init__(self, folder: Path) -> None:
        from deltalake import DeltaTable, write_deltalake

        self.path = str(folder / "table")
        write_deltalake(self.path, TABLE, partition_by=["year", "day"])
        DeltaTable(self.path).delete("text = 'b'")

    def append(self):
        from deltalake import write_deltalake

        write_deltalake(self.path, TABLE, mode="append")

    def open(self):
        from deltalake import DeltaTable

        return DeltaTable(self.path)


class Lance:
    module = extra = "lance"

    def __init__(self, folder: Path) -> None:
        import lance

        self.path = str(folder / "table.lance")
        lance.write_dataset(TABLE, self.path).delete("text = 'b'")

    def append(self):
        import lance

        lance.write_dataset(TABLE, self.path, mode="append")

    def open(self):
        import lance

        return lance.dataset(self.path)


class Iceberg:
    module = "pyiceberg"
    extra = "iceberg"

    def __init__(self, folder: Path) -> None:
        from pyiceberg.catalog.memory import InMemoryCatalog

        catalog = InMemoryCatalog("test", warehouse=f"file://{folder}/warehouse")
        catalog.create_namespace("space")
        self.table = catalog.create_table("space.table", schema=TABLE.schema)
        self.table.append(TABLE)
        self.table.delete("text == 'b'")
        self.path = self.table.location().removeprefix("file://")

    def append(self):
        self.table.append(TABLE)

    def open(self):
        return self.table


KINDS = [
    Delta,
    pytest.param(Lance, marks=pytest.mark.extras("lance")),
    # The other library is of its catalog in memory.
    pytest.param(Iceberg, marks=pytest.mark.extras("pyiceberg", "sqlalchemy")),
]


def values(output):
    rows = pipemill.read(str(output)).to_table().to_pylist()
    assert {row["day"] for row in rows} == {datetime.date(2024, 1, 1)}
    return sorted(((row["text"], row["year"], row["n"]) for row in rows), key=str)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_reads_the_snapshot_that_it_began_with(kind, job, tmp_path):
    table = kind(tmp_path)
    assert pipemill.run(**job(table.path)).done == 3
    assert values(tmp_path / "out") == LEFT
    (record,) = (tmp_path / "out").glob("*/input/*/_complete.json")
    assert json.loads(record.read_text())["snapshot"].split()[0] in ("version", "snapshot")
    table.append()
    min((tmp_path / "out").glob("part-*")).unlink()
    again = pipemill.run(**job(table.path))
    assert (again.rows, again.added["rows"]) == (3, 3)
    assert values(tmp_path / "out") == LEFT
    assert pipemill.run(**job(table.path, "later")).rows == 7
    assert pipemill.run(**job(table.open(), "object")).rows == 7


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_folder_with_a_sign_of_urls_or_patterns_in_its_name_is_read(kind, job, tmp_path):
    (tmp_path / "a#?b").mkdir()
    table = kind(tmp_path / "a#?b")
    assert pipemill.run(**job(f"file://{table.path}")).done == 3
    assert pipemill.run(**job(table.path)).added["rows"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_library_the_extra_is_named(kind, job, tmp_path, monkeypatch):
    table = kind(tmp_path)
    for module in [m for m in sys.modules if m.partition(".")[0] == kind.module]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, kind.module, None)
    with pytest.raises(pipemill.ConfigError, match=rf"pip install 'pipemill\[{kind.extra}\]'"):
        pipemill.run(**job(table.path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_not_there_is_one_line(kind, job, tmp_path):
    given = {"path": str(tmp_path / "none"), "format": kind.extra}
    with pytest.raises(pipemill.ConfigError, match=f"table {tmp_path}/none can't be read") as error:
        pipemill.run(**job(given))
    assert "\n" not in str(error.value)


def test_options_that_a_table_does_not_know_are_named(job):
    given = {"path": "s3://bucket/table", "format": "delta", "storage_options": {"anon": True}}
    with pytest.raises(pipemill.ConfigError, match="input.storage_options: anon can't be used"):
        pipemill.run(**job(given))


@pytest.mark.extras("pyiceberg", "sqlalchemy")
def test_of_several_newest_files_of_an_iceberg_table_one_must_be_named(job, tmp_path):
    table = Iceberg(tmp_path)
    newest = max(Path(table.path).glob("metadata/*.metadata.json"))
    other = newest.with_name(f"{newest.name.partition('-')[0]}-x.metadata.json")
    other.write_bytes(newest.read_bytes())
    with pytest.raises(pipemill.ConfigError, match=r"several files of the number 2 .*name one"):
        pipemill.run(**job(table.path))
    assert pipemill.run(**job({"path": str(newest), "format": "iceberg"})).rows == 3


def test_rows_that_a_deletion_vector_marks_are_not_read(job, tmp_path):
    """As Spark deletes rows: the file stays, and the log names the deleted rows' numbers."""
    table = Delta(tmp_path)
    log = Path(table.path, "_delta_log")
    first, last = (log / f"{version:020}.json" for version in (0, 1))
    actions = [json.loads(line) for line in first.read_text().splitlines()]
    last.unlink()  # the deletion of another row
    (old,) = [action["metaData"] for action in actions if "metaData" in action]
    (file,) = [a["add"] for a in actions if "year=01" in a.get("add", {}).get("path", "")]
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    # A RoaringBitmapArray of the number 1, in Z85.
    vector = {"storageType": "i", "pathOrInlineDv": DELETED, "sizeInBytes": 34, "cardinality": 1}
    commit = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"metaData": {**old, "configuration": {"delta.enableDeletionVectors": "true"}}},
        {"remove": {"path": file["path"], "deletionTimestamp": 0, "dataChange": True}},
        {"add": {**file, "deletionVector": vector}},
    ]
    last.write_text("\n".join(map(json.dumps, commit)))
    assert pipemill.run(**job(table.path)).done == 3
    assert [text for text, _, _ in values(tmp_path / "out")] == ["a", "b", "c"]
