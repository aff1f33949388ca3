"""Folders of Delta Lake, Iceberg, Hudi and Lance are refused: their files are not their rows."""

from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.planning.find_inputs import list_files

from pipemill.errors import ConfigError

LOGS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Apache Hudi": ".hoodie/hoodie.properties",
    "Apache Iceberg": "metadata/00000-a.metadata.json",
    "Lance": "_versions/1.manifest",
}


def table(folder, kind, *files):
    for name in (LOGS[kind], *files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), path)
    return str(folder)


def listed(path, format="auto"):
    return [file.path for file in list_files(path, format, {}, None)[0]]


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize(
    "pattern",
    ["", "/*.parquet", "/*", "/**/*.parquet", "/../*/*.parquet", "/../t", "/..", "/data"],
)
def test_a_table_is_named_with_the_way_out(tmp_path, kind, pattern):
    folder = table(tmp_path / "up/t", kind, "a.parquet", "data/b.parquet")
    path = f"{tmp_path}/up{pattern[3:]}" if pattern.startswith("/..") else f"{folder}{pattern}"
    with pytest.raises(ConfigError, match=rf"up/t is an? {kind} .*[Ee]xport its rows to Parquet"):
        listed(path)
    # A file that is named is what the user wants; so are files of another format.
    assert listed(f"{folder}/a.parquet") == [f"{folder}/a.parquet"]


def test_partitions_of_a_table_are_part_of_it(tmp_path):
    folder = table(tmp_path / "t", "Delta Lake", "day=1/h=2/a.parquet")
    for path in (f"{folder}/day=1", f"{folder}/day=1/h=2/", f"{folder}/day=*/h=2/*.parquet"):
        with pytest.raises(ConfigError, match="is a Delta Lake table"):
            listed(path)


def test_folders_that_only_look_like_it_are_read(tmp_path):
    for name in ("metadata/notes.json", "_versions/a.txt", "data/a.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), path)
    assert listed(str(tmp_path), "parquet") == [str(tmp_path / "data/a.parquet")]


def test_a_table_on_another_filesystem():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lake/t/_delta_log/0.json", b"{}")
    memory.pipe_file("/lake/t/day=1/a.parquet", b"?")
    for path in ("memory://lake/t", "memory://lake/t/day=1", "memory://lake/t/*/a.parquet"):
        with pytest.raises(ConfigError, match="is a Delta Lake table"):
            listed(path)
