"""Inputs as they come: beside hidden files, of unknown length, empty at first, untold types."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.sources.jsonl import JsonlSource
from pipemill.actors.storage.listing import list_below
from pipemill.actors.storage.store import Store

import pipemill
from pipemill.errors import ConfigError, RunError


def below(path):
    return list_below(path, {}, None).files


@pytest.fixture
def job(models, tmp_path):
    return functools.partial(
        pipemill.run,
        task="text-classification",
        model=models["text-classification"],
        output={"path": str(tmp_path / "out")},
        actors={"placement": "local"},
    )


@pytest.mark.parametrize("pattern", ["data", "data/*.jsonl", "data/**/*.jsonl", "da*", "d*/*"])
def test_a_glob_takes_no_hidden_files(tmp_path, pattern):
    for name in ("a", "._a", "_b", "_temporary/c", ".ipynb_checkpoints/d"):
        file = tmp_path / "data" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"text": "a"}\n')
    found = below(str(tmp_path / pattern))
    assert [os.path.basename(file.path) for file in found] == ["a.jsonl"]


def test_what_a_pattern_begins_with_may_be_hidden(tmp_path):
    (tmp_path / "_in").mkdir()
    (tmp_path / "_in" / "a.jsonl").write_text("{}\n")
    assert len(below(str(tmp_path / "_in" / "*.jsonl"))) == 1


def test_pipes_and_links_to_nothing_are_named_and_never_opened(job, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"text": "a"}\n')
    os.mkfifo(tmp_path / "in/b.fifo")  # which says nothing of rows
    assert job(input=str(tmp_path / "in")).rows == 1
    os.mkfifo(tmp_path / "in/b.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nothing.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "in/b.jsonl")
    named = dict.fromkeys(("in", "in/*.jsonl", "in/b.jsonl"), "b.jsonl")
    named |= {"in/b.fifo": "b.fifo", "link.jsonl": "link.jsonl", "/dev/null": "null"}
    for path, name in named.items():
        with pytest.raises(ConfigError, match=rf"/{name} is a pipe, a socket or a device, and"):
            job(input=str(tmp_path / path), output=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"no input at .*gone\.jsonl: it is a link to nothing$"):
        job(input=str(tmp_path / "gone.jsonl"))


class Untold(http.server.SimpleHTTPRequestHandler):
    """Says of no file how long it is."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_a_web_file_of_untold_length_is_read(job):
    pytest.importorskip("aiohttp")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Untold)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        report = job(input=f"http://127.0.0.1:{server.server_port}/rows.jsonl")
    finally:
        server.shutdown()
    assert (report.rows, report.dead) == (3, 0)


def test_an_empty_first_file_makes_no_tiny_splits(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{"text": "some words of a row"}\n' * 40_000)
    source, files = JsonlSource({}), below(str(tmp_path))
    assert len(source.plan_splits(files, None, None)) < 60


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, {"k": 1}], pa.struct([("k", pa.int64())])),
        ([{"k": 1}, None], pa.struct([("k", pa.int64())])),
        ([None, 3], pa.int64()),
        ([None, None], pa.string()),
        ([[], [1]], pa.list_(pa.int64())),
        (["text", {}], pa.string()),
        ([{"k": None}, {"k": "a"}], pa.struct([("k", pa.string())])),
    ],
)
def test_what_one_file_leaves_null_another_tells(tmp_path, values, kind):
    for i, value in enumerate(values):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"text": "a", "meta": value}) + "\n")
    schema = JsonlSource({}).infer_schema(below(str(tmp_path)))
    assert schema.field("meta").type == kind


def test_a_damaged_gz_is_named(job, tmp_path):
    whole = gzip.compress(b'{"text": "a"}\n' * 5000)
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[:20] + b"\xff" * 40 + whole[60:])
    with pytest.raises(ConfigError, match=r"can't read .*rows\.jsonl\.gz"):
        job(input=str(tmp_path / "rows.jsonl.gz"))


def rows(tmp_path, texts, **columns):
    pq.write_table(pa.table({"text": texts, **columns}), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


def test_null_is_a_way_to_treat_errors(job, tmp_path):
    output = {"path": str(tmp_path / "out"), "on_error": None, "max_errors": None}
    report = job(input=rows(tmp_path, ["a", None]), output=output)
    assert (report.done, report.dead) == (1, 1)
    assert pq.ParquetDataset(tmp_path / "out").read().num_rows == 2


def test_running_a_wrong_job_again_does_not_make_it_right(job, tmp_path):
    path = rows(tmp_path, ["a", None, None])
    output = {"path": str(tmp_path / "out"), "max_errors": 0.1}
    for _ in range(2):
        with pytest.raises(RunError, match="2 of 3 rows failed, more than output.max_errors"):
            job(input=path, output=output)
    assert job(input=path, output={**output, "max_errors": 0.9}).dead == 2


def test_all_rows_may_fail_or_one(job, tmp_path):
    path = rows(tmp_path, pa.nulls(3, pa.string()))
    assert job(input=path, output={"path": str(tmp_path / "a"), "max_errors": None}).dead == 3
    with pytest.raises(RunError, match="all 3 rows failed"):
        job(input=path, output={"path": str(tmp_path / "c"), "max_errors": 1.0})
    with pytest.raises(RunError, match="all 3 rows failed"):
        job(input=path, output={"path": str(tmp_path / "b"), "max_errors": 1})


def test_retry_of_times_that_parquet_keeps_otherwise(models, tmp_path):
    long = "[MASK] " + "word " * 400 + "[MASK]"  # too far apart for one window
    (tmp_path / "rows.csv").write_text(
        f"text,at\na [MASK],2020-01-01 10:00:00\n{long},2021-01-01 10:00:00\n"
    )
    job = {
        "task": "fill-mask",
        "model": models["fill-mask"],
        "input": str(tmp_path / "rows.csv"),
        "actors": {"placement": "local"},
        "output": {"path": str(tmp_path / "out"), "max_errors": None},
    }
    assert pipemill.run(**job).dead == 1
    cut = {"tokenizer_kwargs": {"truncation": True}}
    assert pipemill.retry(**job, parameters=cut).dead == 0
    assert pq.ParquetDataset(tmp_path / "out").read()["at"].null_count == 0


def test_times_that_python_has_not_are_shown_by_their_type(job, tmp_path, capsys):
    from pipemill.jobs.output.text_table import join_blocks
    from pipemill.jobs.preview import read_first_rows

    far = pa.array([2**62], pa.timestamp("us"))
    job(input=rows(tmp_path, ["a"], at=far))
    assert "(timestamp[us])" in join_blocks(read_first_rows(str(tmp_path / "out"), {}))


def test_the_output_is_not_in_the_models_folder(job, models, tmp_path):
    output = f"{models['text-classification']}/answers"
    with pytest.raises(ConfigError, match="lies in the model's folder"):
        job(input=rows(tmp_path, ["a"]), output=output)


def test_a_column_is_named_as_it_is_written(models, tmp_path, capsys):
    from pipemill.jobs.cli.app import main

    for name in ("Question #1", "no", "2024", "a: b", "x=y"):
        pq.write_table(pa.table({name: ["a"]}), tmp_path / "rows.parquet")
        command = ["run", "--task", "text-classification", "--model", models["text-classification"]]
        command += ["--input", str(tmp_path / "rows.parquet"), "--output", f"{tmp_path}/out {name}"]
        command += ["--column", f"text={name}", "--set", "actors.placement=local"]
        assert main(command) == 0, capsys.readouterr().err


def test_a_credential_that_is_an_object_stops_no_text_task(job, tmp_path):
    path = rows(tmp_path, ["a"])
    assert job(input={"path": path, "storage_options": {"auto_mkdir": True}}).done == 1
    from pipemill.jobs.config.job import InputSection
    from pipemill.jobs.planning.media_roots import make_media_access

    section = InputSection(path=path, storage_options={"credential": object()})
    assert make_media_access(section).roots == (str(tmp_path),)
    (tmp_path / "set [v2]").mkdir()
    (tmp_path / "set [v2]" / "r.jsonl").write_text("{}\n")
    section = InputSection(path=str(tmp_path / "set [v2]" / "r.jsonl"))
    assert make_media_access(section).roots == (str(tmp_path / "set [v2]"),)


def test_a_lease_whose_answer_was_lost_is_ours(tmp_path, monkeypatch):
    from pipemill.jobs.output import lease as leases

    usual = leases.create_exclusive

    def lost(filesystem, path, data):
        usual(filesystem, path, data)
        raise FileExistsError(path)

    monkeypatch.setattr(leases, "create_exclusive", lost)
    with leases.Lease(Store(str(tmp_path / "out"))) as lease:
        lease.acquire()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(b"")),
        ("a.jsonl", b"\n  \n\r\n"),
        ("a.json", b"[]\n"),
        ("a.jsonl", b"\xef\xbb\xbf"),
    ],
)
def test_json_without_rows_is_no_input_until_there_are_some(job, tmp_path, name, data):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    assert job(input=str(tmp_path / "in")).rows == 0
    assert pq.read_table(tmp_path / "out").column_names == ["text", "label", "score"]
    (tmp_path / "in/b.jsonl").write_text('{"text": "a mill"}\n')
    assert job(input=str(tmp_path / "in")).done == 1
