"""`pipemill.read`: the rows of an output in their order, and what is not a row of it."""

from __future__ import annotations

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipemill
from tests.support import tiny

TEXTS = tiny.texts(23, seed=4, longest=8)
DEAD = (3, 17)
LETTERS = ["id", "text", "split", "row", "stage", "error", "message", "attempts"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    texts = [None if i in DEAD else text for i, text in enumerate(TEXTS)]
    path = tmp_path_factory.mktemp("read") / "in.parquet"
    pq.write_table(pa.table({"id": range(23), "text": texts}), path)
    return path


def run(models, data, output, **sections):
    return pipemill.run(
        task="text-classification",
        model=models["text-classification"],
        input=str(data),
        output={"rows_per_part": 5, "max_errors": None, **output},
        actors={"placement": "local"},
        **sections,
    )


@pytest.fixture(scope="module")
def report(models, data):
    return run(models, data, {"path": str(data.parent / "out")})


@pytest.fixture(params=["folder", "store"])
def kept(request, models, data, report):
    """The report of an output: a local one, and one in a store of which Arrow knows nothing."""
    if request.param == "folder":
        return report
    return run(models, data, {"path": f"memory://read-{data.parent.name}/out"})


def test_rows_come_in_their_order_and_nothing_else_does(kept):
    found = pipemill.read(kept.output)
    assert len(list(found.get_fragments())) == kept.splits == 5
    table = found.to_table()
    assert table["id"].to_pylist() == [i for i in range(23) if i not in DEAD]
    assert table.schema.names == ["id", "text", "label", "score"]
    assert b"pipemill" not in (table.schema.metadata or {})
    assert found.count_rows() == 21


def test_dead_letters_are_a_table(kept):
    letters = pipemill.read(kept.output, dead_letters=True).to_table()
    assert letters.schema.names == LETTERS
    assert letters["id"].to_pylist() == list(DEAD)
    assert letters.equals(kept.dead_letter_table())


def test_columns_are_those_that_were_asked_for(kept):
    assert pipemill.read(kept.output, ["score", "id"]).schema.names == ["score", "id"]
    assert kept.to_arrow(["label"]).schema.names == ["label"]
    assert pipemill.read(kept.output, ["row"], dead_letters=True).to_table().num_columns == 1
    with pytest.raises(pipemill.ConfigError, match="no column 'scores'; did you mean 'score'"):
        pipemill.read(kept.output, ["id", "scores"])
    with pytest.raises(pipemill.ConfigError, match="a list of names, not the text 'id'"):
        pipemill.read(kept.output, "id")


def test_a_report_reads_its_output(report):
    table = report.dataset().to_table()
    assert report.to_arrow().equals(table)
    assert report.to_pandas().equals(table.to_pandas())
    assert list(report.to_pandas(["id"]).columns) == ["id"]


def test_a_report_keeps_the_options_and_shows_them_nowhere(models, data, monkeypatch):
    seen = []
    opened = fsspec.core.url_to_fs

    def noted(url, **options):
        seen.append(options.pop("secret", None))
        return opened(url, **options)

    monkeypatch.setattr("pipemill.actors.storage.filesystem.url_to_fs", noted)
    options = {"secret": "swordfish"}
    path = f"memory://options-{data.parent.name}/out"
    report = run(models, data, {"path": path, "storage_options": options})
    seen.clear()
    assert report.to_arrow().num_rows == 21
    assert set(seen) == {"swordfish"}
    assert "swordfish" not in f"{report!r}{report}{report.to_json()}{report._repr_html_()}"
    assert "storage_options" not in json.loads(report.to_json())


def test_an_output_that_is_not_finished_has_the_rows_so_far(models, data, tmp_path):
    report = run(models, data, {"path": str(tmp_path / "out")})
    first, *others = sorted((tmp_path / "out").glob("part-*.parquet"))
    (tmp_path / "out" / "stray.parquet").write_bytes(first.read_bytes())
    whole = report.to_arrow()["id"].to_pylist()
    lost = pq.read_table(others[-1])["id"].to_pylist()
    others[-1].unlink()
    assert report.to_arrow()["id"].to_pylist() == whole[: -len(lost)]
    for part in (first, *others[:-1]):
        part.unlink()
    assert report.to_arrow().num_rows == 0
    assert pipemill.read(report.output, ["id"]).to_table().to_pydict() == {"id": []}


def test_a_folder_may_be_relative_and_have_any_name(models, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(models, data, {"path": "a b#%20"})
    assert pipemill.read("a b#%20").count_rows() == 21
    folder = tmp_path / "a b#%20"
    assert pipemill.read(folder).count_rows() == 21
    assert pipemill.status(folder).done == pipemill.verify(folder).done == 21
    assert pipemill.report(folder) == f"{folder}/_pipemill/report.html"


def test_no_dead_letters_are_no_rows(models, tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    report = run(models, tmp_path / "in.parquet", {"path": str(tmp_path / "out")})
    assert report.dead_letter_table().num_rows == 0


def test_what_is_not_an_output_or_is_damaged_is_said(models, data, tmp_path):
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.read(str(tmp_path))
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.read("memory://nothing-is-there")
    report = run(models, data, {"path": str(tmp_path / "out")})
    min((tmp_path / "out").glob("part-*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(pipemill.ConfigError, match=r"can't read .*part-00000000.*pipemill verify"):
        pipemill.read(report.output)
