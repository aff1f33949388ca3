"""Objects of the `datasets` library given as the input."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output.ledger import Ledger
from pipemill.jobs.output.stored_rows import with_stored_rows
from pipemill.jobs.planning.columns import check_features

import pipemill
from tests.support import light, tiny
from tests.support.splits import plan, read, rows

datasets = pytest.importorskip("datasets")


def text(count=60):
    return datasets.Dataset.from_dict({"id": list(range(count)), "text": tiny.texts(count, 3, 20)})


def job(models, dataset, output, **more):
    return {
        "task": "text-classification",
        "model": models["text-classification"],
        "input": dataset,
        "output": {"path": str(output), "rows_per_part": 16},
        "actors": {"placement": "local"},
        **more,
    }


def stored(dataset, output):
    """The Parquet files that a dataset becomes."""
    made = build_job(None, [], {}, {"task": "t", "model": "m", "input": dataset, "output": "o"})
    return with_stored_rows(made, Ledger(Store(str(output)))).input.path


def test_a_dataset_is_input_in_its_own_order_and_resumes(models, tmp_path):
    chosen = text().shuffle(seed=1).filter(lambda row: row["id"] % 2 == 0).select(range(25))
    report = pipemill.run(**job(models, chosen, tmp_path / "out"))
    assert (report.rows, report.splits) == (25, 2)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["id"].to_pylist() == chosen["id"][:]
    assert table["text"].to_pylist() == chosen["text"][:]
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert chosen._fingerprint in record["job"]["input"]["path"]
    assert record["decides"]["input.dataset"] == chosen._fingerprint
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/_pipemill/input/*/*/*")}
    min((tmp_path / "out").glob("part-*")).unlink()
    again = {**job(models, None, tmp_path / "out"), "input": {"path": chosen}}
    assert pipemill.run(again).added["rows"] == 12
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/_pipemill/input/*/*/*")} == kept


def test_another_dataset_is_refused_and_so_are_files_in_its_place(models, tmp_path):
    pipemill.run(**job(models, text(), tmp_path / "out"))
    with pytest.raises(pipemill.ConfigError, match=r"input\.dataset \('.*' then, '.*' now\)"):
        pipemill.run(**job(models, text(61), tmp_path / "out"))
    pq.write_table(text().data.table, tmp_path / "in.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"input\.dataset \('.*' then, None now\)"):
        pipemill.run(**job(models, str(tmp_path / "in.parquet"), tmp_path / "out"))


def test_settings_and_a_ready_job_keep_the_dataset(models, tmp_path):
    made = pipemill.Job(**job(models, text(), tmp_path / "out"))
    assert pipemill.run(made, settings=["input.limit=7"]).rows == 7


def test_what_is_no_plain_dataset_is_refused(models, tmp_path):
    ones = text(5)
    for wrong, message in [
        (ones["text"], r"a Column is not a datasets.Dataset"),
    ]:
        for given in (wrong, {"path": wrong}):
            with pytest.raises(pipemill.ConfigError, match=f"'input.path' in the job: .*{message}"):
                pipemill.run(**job(models, given, tmp_path / "out"))


def test_a_transform_is_refused_and_a_format_changes_no_value(models, tmp_path):
    def louder(rows):
        return {"text": [text.upper() for text in rows["text"]]}

    made = text(3)
    changed = text(3)
    changed.set_transform(louder)
    for given in (made.with_transform(louder), changed, made.with_transform(louder).select([1])):
        with pytest.raises(pipemill.ConfigError, match=r"has a transform .*dataset\.map"):
            pipemill.run(**job(models, given, tmp_path / "out"))
    given = datasets.DatasetDict(train=made, test=changed)
    with pytest.raises(pipemill.ConfigError, match=r"\(it is DatasetDict\(\{ train: ") as caught:
        pipemill.run(**job(models, given, tmp_path / "out"))
    assert "\n" not in str(caught.value)
    for kind in ("numpy", "torch", "pandas", "arrow"):
        folder = stored(made.with_format(kind), tmp_path / kind)
        found = rows(read(plan(folder, format="parquet")))
        assert [row["text"] for row in found] == made["text"][:]


def test_images_that_datasets_turns_grey_are_refused(models, tmp_path):
    from PIL import Image

    images = [Image.new("RGB", (20, 20), (i, 0, 200)) for i in range(3)]
    made = datasets.Dataset.from_dict({"image": images, "other": images})
    made = made.cast_column("image", datasets.Image())
    images = {"task": "image-classification", "model": models["image-classification"]}
    grey = made.cast_column("image", datasets.Image(mode="L"))
    grey.to_parquet(tmp_path / "grey.parquet")
    for given in (grey, grey.to_iterable_dataset(), str(tmp_path / "grey.parquet")):
        with pytest.raises(pipemill.ConfigError, match=r"Image\(mode='L'\).*cast_column\('image'"):
            pipemill.run(**{**job(models, given, tmp_path / "out"), **images})
    usual = pipemill.run(**{**job(models, made, tmp_path / "usual"), **images})
    color = made.cast_column("image", datasets.Image(mode="RGB"))
    color = color.cast_column("other", datasets.Image(mode="L"))  # which is not read
    assert pipemill.run(**{**job(models, color, tmp_path / "color"), **images}).done == usual.done
    tables = [ds.dataset(tmp_path / name).to_table() for name in ("usual", "color")]
    assert tables[0]["scores"].to_pylist() == tables[1]["scores"].to_pylist()


def test_files_are_stored_as_they_are_and_never_decoded(tmp_path):
    from PIL import Image

    paths = []
    for i in range(120):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (4, 4), (i, 0, 0)).save(paths[-1])
    (tmp_path / "7.png").write_bytes(b"no picture")
    made = datasets.Dataset.from_dict({"image": paths, "n": range(120)})
    made = made.cast_column("image", datasets.Image()).select(range(119, -1, -1))
    folder = stored(made, tmp_path / "out")
    got = rows(read(plan(folder, format="parquet")))
    assert [row["n"] for row in got] == list(range(119, -1, -1))
    for row in got:
        with open(tmp_path / f"{row['n']}.png", "rb") as file:
            assert row["image"]["bytes"] == file.read()
    (tmp_path / "3.png").unlink()
    with pytest.raises(pipemill.ConfigError, match=r"rows 100 to 120 .*FileNotFoundError.*3\.png"):
        stored(made, tmp_path / "other")


def test_an_interrupted_store_is_written_again_and_shards_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr("pipemill.jobs.rows.held_rows._SHARD_BYTES", 1000)
    monkeypatch.setattr("pipemill.jobs.rows.hf_datasets.GROUP_ROWS", 10)
    made = text().with_format("numpy", columns=["id"])
    folder = stored(made, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("_pipemill/input/*/*/*.rows"))
    assert len(files) > 2
    (tmp_path / folder).parent.joinpath("_complete.json").unlink()
    files[1].write_bytes(b"half")
    folder = stored(made, tmp_path / "out")
    assert stored(made, tmp_path / "out") == folder
    assert not files[0].exists()
    got = rows(read(plan(folder, format="parquet")))
    assert [row["id"] for row in got] == list(range(60))
    assert [row["text"] for row in got] == text()["text"][:]


def test_without_a_dataset_the_library_is_not_imported(tmp_path):
    code = (
        "import sys, pipemill\n"
        "from pipemill.jobs import prepare\n"
        "from pipemill.jobs.config.load import build_job\n"
        "build_job(None, [], {}, dict(task='t', model='m', input='i', output='o'))\n"
        "print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_stream_that_fails_on_the_way_is_one_line(tmp_path, monkeypatch):
    light.install(monkeypatch)

    def read():
        for number in range(1500):
            yield {"text": f"text {number}"}
        raise ConnectionError("no route to the Hub")

    stream = datasets.IterableDataset.from_generator(read)
    wanted = {**light.job(tmp_path, ["unused"]), "input": stream}
    with pytest.raises(pipemill.RunError, match="a datasets.IterableDataset failed") as caught:
        pipemill.run(**wanted)
    assert "no route to the Hub" in str(caught.value)
    assert "None of its rows is stored: run again" in str(caught.value)
    whole = datasets.IterableDataset.from_generator(lambda: ({"text": t} for t in "abc"))
    assert pipemill.run(**{**wanted, "input": whole}).rows == 3


def _shout(row):
    return {**row, "text": row["text"].upper()}


STREAMS = {
    "generator": lambda made, read: datasets.IterableDataset.from_generator(read),
    "map": lambda made, read: made.to_iterable_dataset(num_shards=3).map(_shout),
    "features": lambda made, read: made.to_iterable_dataset().map(_shout, features=made.features),
    "filter": lambda made, read: made.to_iterable_dataset().map(_shout).filter(lambda row: True),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("late", [0, 1200])
def test_values_of_a_stream_may_be_null_in_some_rows(answers, kind, late):
    """Each row of a stream that was mapped has the types of its own values."""

    def read():
        for n in range(late + 300):
            odd = n >= late and n % 3
            yield {"text": "ONE", "n": None if odd == 1 else n, "l": [] if odd else [n, None]}

    rows = list(read())
    stream = STREAMS[kind](datasets.Dataset.from_list(rows), read)
    got = answers(stream).select(["text", "n", "l"]).to_pylist()
    assert got == rows


def test_a_stream_of_what_can_be_read_once_is_read_once(answers):
    given = iter([{"text": "ONE", "n": n if n % 2 else None} for n in range(1500)])

    def read():
        yield from given

    got = answers(datasets.IterableDataset.from_generator(read))
    assert got["n"].to_pylist() == [n if n % 2 else None for n in range(1500)]


def test_pictures_of_a_stream_that_was_mapped_are_kept(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int8")})
    paths = [str(tmp_path / "a.png"), None, str(tmp_path / "a.png")]
    made = datasets.Dataset.from_dict({"image": paths, "n": [1, None, 3]}, features=features)
    stream = made.to_iterable_dataset().map(lambda row: row, features=features)
    got = rows(read(plan(stored(stream, tmp_path / "out"), format="parquet")))
    assert [row["n"] for row in got] == [1, None, 3]
    assert [row["image"] and row["image"]["bytes"][:4] for row in got] == [
        b"\x89PNG",
        None,
        b"\x89PNG",
    ]


def test_json_inside_of_messages_is_refused_unless_all_of_them_are_json():
    """Arguments of a call would be a text in the prompt, where datasets gives a dict."""
    value, kept_as = datasets.Value("string"), datasets.Json()

    def check(column, feature):
        schema = datasets.Features({"messages": feature, "id": value}).arrow_schema
        check_features({column: "messages"}, schema)

    calls = datasets.List({"function": {"name": value, "arguments": kept_as}})
    inside = datasets.List({"role": value, "content": value, "tool_calls": calls})
    with pytest.raises(pipemill.ConfigError, match=r"column 'messages' has the feature Json\(\)"):
        check("messages", inside)
    check("inputs", inside)
    for feature in (kept_as, datasets.List(kept_as), datasets.List({"role": value})):
        check("messages", feature)
