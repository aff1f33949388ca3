"""Tables in the state folder, on a disk and on an object store, of this version and of others."""

from __future__ import annotations

import pytest
from pipemill.actors.output.state_table import StateTable, dead_letters
from pipemill.actors.storage.store import Store

NAME = "_pipemill/dead-letter/part-0.parquet"


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    store = Store(str(tmp_path / "out") if request.param == "disk" else "memory://state-table/out")
    yield store
    if request.param == "memory":
        store.filesystem.rm("/state-table", recursive=True)


def test_dead_letters_are_a_file_and_other_tables_are_not(store):
    dead_letters(store, "part-0.parquet").write(b"letters")
    StateTable(store, "_pipemill/plan.parquet").write(b"plan")
    assert store.read(NAME) == b"letters"
    assert store.read("_pipemill/plan.parquet/rows") == b"plan"


@pytest.mark.parametrize("form", ["file", "folder"])
@pytest.mark.parametrize("before", ["file", "folder"])
def test_a_table_of_another_version_keeps_its_form(store, form, before):
    StateTable(store, NAME, before).write(b"old")
    table = StateTable(store, NAME, form)
    assert table.read() == b"old"
    table.write(b"new")
    assert table.read() == b"new"
    assert store.read(NAME if before == "file" else f"{NAME}/rows") == b"new"
    table.remove()
    assert not store.exists(NAME)
    with pytest.raises(FileNotFoundError):
        table.read()
    table.remove()
    table.write(b"again")
    assert store.read(NAME if form == "file" else f"{NAME}/rows") == b"again"
