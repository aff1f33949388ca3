"""`pipemill.read`: the rows of an output in their order, and what is not a row of it."""

from __future__ import annotations

import json
import shutil

import fsspec
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipemill
from tests.references import half_done
from tests.support import light, tiny

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
    assert letters.equals(kept.dead_letters())


def test_columns_are_those_that_were_asked_for(kept):
    assert pipemill.read(kept.output, ["score", "id"]).schema.names == ["score", "id"]
    assert kept.to_arrow(["label"]).schema.names == ["label"]
    assert pipemill.read(kept.output, ["row"], dead_letters=True).to_table().num_columns == 1
    with pytest.raises(pipemill.ConfigError, match="no column 'scores'; did you mean 'score'"):
        pipemill.read(kept.output, ["id", "scores"])
    with pytest.raises(pipemill.ConfigError, match="a list of texts, .*, not 'id'"):
        pipemill.read(kept.output, "id")


def test_a_report_reads_its_output(report):
    table = report.dataset().to_table()
    assert report.to_arrow().equals(table)
    assert report.to_dataset(["id"]).to_table().equals(report.dataset(["id"]).to_table())
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
    assert report.dead_letters().num_rows == 0


def test_what_is_not_an_output_or_is_damaged_is_said(models, data, tmp_path):
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.read(str(tmp_path))
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.read("memory://nothing-is-there")
    report = run(models, data, {"path": str(tmp_path / "out")})
    min((tmp_path / "out").glob("part-*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(pipemill.ConfigError, match=r"can't read .*part-00000000.*pipemill verify"):
        pipemill.read(report.output)


def test_letters_of_rows_that_have_an_answer_are_not_read(tmp_path, monkeypatch):
    """A retry that was killed after it wrote a part leaves the old letters."""
    light.install(monkeypatch)
    wanted = light.job(tmp_path, [f"bad{n % 3 + 1}" if n % 2 else f"text {n}" for n in range(40)])
    report = pipemill.run(wanted)
    files = sorted((tmp_path / "out/_pipemill/dead-letter").glob("part-*"))
    assert len(files) == 4
    before = [file.read_bytes() for file in files]
    pipemill.retry({**wanted, "parameters": {"healed": 2}})
    after = report.dead_letters()
    assert 0 < len(after) < 20
    for file, data in list(zip(files, before, strict=True))[1:3]:
        file.write_bytes(data)
    letters = pipemill.read(report.output, dead_letters=True)
    # These were tried once less; otherwise they are the same, in their order.
    assert letters.to_table().drop_columns("attempts").equals(after.drop_columns("attempts"))
    assert letters.count_rows() == len(after)
    some = pipemill.read(report.output, ["text", "n"], dead_letters=True)
    assert some.schema.names == ["text", "n"]
    assert some.to_table().equals(after.select(["text", "n"]))
    healed = pipemill.retry({**wanted, "parameters": {"healed": 3}})
    for file, data in zip(files, before, strict=True):
        file.write_bytes(data)
    assert healed.dead_letters().num_rows == 0


def test_letters_of_a_split_without_a_part_are_not_read(models, data, tmp_path):
    """A run that was killed before it wrote a part leaves letters, and tries their rows again."""
    report = run(models, data, {"path": str(tmp_path / "out")})
    assert report.dead_letters()["id"].to_pylist() == list(DEAD)
    next((tmp_path / "out").glob("part-00000003-*")).unlink()
    assert report.dead_letters()["id"].to_pylist() == [DEAD[0]]
    shutil.copyfile(
        next((tmp_path / "out/_pipemill/dead-letter").iterdir()),
        tmp_path / "out/_pipemill/dead-letter/part-00000009-of-nothing.parquet",
    )
    next((tmp_path / "out/_pipemill/dead-letter").glob("part-00000000-*")).unlink()
    assert report.dead_letters().num_rows == 0


def test_letters_that_are_damaged_are_named(models, data, tmp_path):
    report = run(models, data, {"path": str(tmp_path / "out")})
    next((tmp_path / "out/_pipemill/dead-letter").glob("part-*")).write_bytes(b"PAR1")
    with pytest.raises(pipemill.ConfigError, match=r"can't read .*dead-letter.*pipemill verify"):
        report.dead_letters()


def test_an_older_output_has_its_dead_letters_in_files(tmp_path):
    shutil.copytree(half_done.OUTPUTS / "text/output", tmp_path / "out")
    (file,) = (tmp_path / "out/_pipemill/dead-letter").iterdir()
    assert file.is_file()
    letters = pipemill.read(tmp_path / "out", dead_letters=True).to_table()
    assert letters.num_rows == 2
    assert letters.to_pylist() == pq.read_table(file).to_pylist()
    rows = pipemill.read(tmp_path / "out").to_table()
    assert rows.num_rows == 6
    assert rows.equals(polars.read_parquet(tmp_path / "out/*.parquet").to_arrow().cast(rows.schema))
