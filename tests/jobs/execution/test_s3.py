"""Inputs and outputs on a real S3 server, which is slow, away, or says no."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import dask.dataframe
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.sources import split_ranges
from pipemill.actors.sources.open_source import RetryingSource
from pipemill.actors.storage import backoff, listing, walk_files
from pipemill.actors.storage.filesystem import open_filesystem, write_atomic
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main
from pipemill.jobs.output import ledger
from pipemill.jobs.output.ledger import Ledger
from pyarrow import fs

import pipemill
from tests.actors.storage.test_file_names import check_names
from tests.support import light, s3_server
from tests.support.failing_proxy import Proxy

ROWS = 120
TEXTS = [f"text {n}" if n % 40 else None for n in range(ROWS)]
DEAD = [n for n in range(ROWS) if TEXTS[n] is None]


@pytest.fixture
def server(object_store):
    """It is up, even if a test that had stopped it failed."""
    object_store.start()
    return object_store


@pytest.fixture
def bucket(server, monkeypatch, request):
    """The URL of a new bucket that holds the input."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    # The client's own patience comes on top of pipemill's.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    name = "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    filesystem, _ = open_filesystem("s3://", {})
    filesystem.mkdir(name)
    half = ROWS // 2
    for i, first in enumerate((0, half)):
        table = pa.table({"n": range(first, first + half), "text": TEXTS[first : first + half]})
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=20)
        filesystem.pipe_file(f"{name}/in/{i}.parquet", sink.getvalue())
    light.install(monkeypatch)
    return f"s3://{name}"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(backoff, "WAITS_S", (0.05, 0.1))


def job(bucket, tmp_path, rows_per_part=20, **more):
    wanted = light.job(tmp_path, [], rows_per_part, **more)
    wanted["input"], wanted["output"]["path"] = f"{bucket}/in", f"{bucket}/out"
    return wanted


def rows_of(bucket) -> list[int]:
    filesystem, root = open_filesystem(f"{bucket}/out", {})
    parts = sorted(name for name in filesystem.ls(root, detail=False) if "/part-" in name)
    return [
        n
        for part in parts
        for n in pq.read_table(io.BytesIO(filesystem.cat_file(part)))["n"].to_pylist()
    ]


def check_rows(bucket):
    assert rows_of(bucket) == [n for n in range(ROWS) if n not in DEAD]


def check_other_readers(bucket, server):
    """They take the output for one dataset."""
    out, done = f"{bucket}/out", [n for n in range(ROWS) if n not in DEAD]
    arrow = fs.S3FileSystem(
        access_key=s3_server.KEY,
        secret_key=s3_server.SECRET,
        endpoint_override=server.endpoint,
        region="us-east-1",
    )
    path = out.removeprefix("s3://")
    assert ds.dataset(path, filesystem=arrow).to_table()["n"].to_pylist() == done
    letters = ds.dataset(f"{path}/_pipemill/dead-letter", filesystem=arrow)
    assert letters.to_table()["n"].to_pylist() == DEAD
    assert pd.read_parquet(out)["n"].tolist() == done
    assert dask.dataframe.read_parquet(f"{out}/*.parquet")["n"].compute().tolist() == done
    options = {
        "aws_access_key_id": s3_server.KEY,
        "aws_secret_access_key": s3_server.SECRET,
        "aws_endpoint_url": server.endpoint,
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    rows = polars.scan_parquet(f"{out}/*.parquet", storage_options=options)
    assert rows.collect()["n"].to_list() == done
    dead = polars.scan_parquet(f"{out}/_pipemill/dead-letter/*.parquet", storage_options=options)
    assert dead.collect()["n"].to_list() == DEAD


def test_small_files_share_splits_and_one_that_is_gone_is_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(split_ranges, "_FEWEST_TO_BUNDLE", 2)
    filesystem, root = open_filesystem(f"{bucket}/few", {})
    for i in range(9):
        filesystem.pipe_file(f"{root}/{i}.jsonl", f'{{"text": "{i}"}}\n'.encode() * (i + 1))
    wanted = {**job(bucket, tmp_path), "input": f"{bucket}/few"}
    report = pipemill.run(wanted)
    assert (report.rows, report.splits) == (45, 3)
    table = pipemill.read(f"{bucket}/out").to_table()
    assert table["text"].to_pylist() == [str(i) for i in range(9) for _ in range(i + 1)]
    first = sorted(filesystem.glob(f"{bucket}/out/part-*"))[0]
    filesystem.rm_file(first)
    filesystem.rm_file(f"{root}/1.jsonl")
    with pytest.raises(pipemill.RunError, match=r"few/1\.jsonl no longer exists"):
        pipemill.run(wanted)
    assert pipemill.run(wanted, on_changed="reprocess").rows == 43


def test_a_job_is_run_resumed_retried_verified_and_tells_no_secret(bucket, server, tmp_path, capfd):
    report = pipemill.run(**job(bucket, tmp_path))
    assert (report.rows, report.dead) == (ROWS, len(DEAD))
    check_rows(bucket)
    filesystem, root = open_filesystem(f"{bucket}/out", {})
    filesystem.rm_file(sorted(filesystem.glob(f"{root}/part-*"))[3])
    assert pipemill.run(**job(bucket, tmp_path)).added["splits"] == 1
    check_rows(bucket)
    assert main(["status", f"{bucket}/out"]) == 0
    check_other_readers(bucket, server)
    retried = pipemill.retry({**job(bucket, tmp_path), "parameters": {"healed": 3}})
    assert retried.dead == report.dead
    assert retried.dead_letters()["attempts"].to_pylist() == [2] * len(DEAD)
    assert filesystem.exists(f"{root}/.huggingface.yaml")
    assert main(["verify", f"{bucket}/out"]) == 0
    told = "".join(capfd.readouterr())
    stored = b"".join(filesystem.cat_file(path) for path in filesystem.find(root))
    assert s3_server.SECRET not in told
    assert s3_server.SECRET.encode() not in stored
    assert s3_server.KEY.encode() not in stored


def test_odd_names_of_objects_and_tables_of_other_formats(bucket, tmp_path):
    for suffix in ("parquet", "jsonl", "png", "tar"):
        check_names(f"{bucket}/{suffix}", suffix)
    filesystem, root = open_filesystem(f"{bucket}/table", {})
    filesystem.pipe_file(f"{root}/_delta_log/0.json", b"{}")
    filesystem.pipe_file(f"{root}/day=1/a.parquet", b"?")
    for path in ("table", "table/day=1", "table/*/a.parquet"):
        wanted = {**job(bucket, tmp_path), "input": f"{bucket}/{path}"}
        with pytest.raises(
            pipemill.ConfigError,
            match="the Delta Lake table .*/table can't be read|/table is a Delta Lake table",
        ):
            pipemill.run(**wanted)


def test_options_in_python_take_the_place_of_the_environment(bucket, server, tmp_path, monkeypatch):
    for name in server.environment():
        monkeypatch.delenv(name)
    options = {
        "key": s3_server.KEY, "secret": s3_server.SECRET, "endpoint_url": server.endpoint,
    }  # fmt: skip
    wanted = job(bucket, tmp_path)
    wanted["input"] = {"path": wanted["input"], "storage_options": options}
    wanted["output"]["path"] += "/odd name+%20"
    wanted["output"]["storage_options"] = options
    report = pipemill.run(**wanted)
    assert report.rows == ROWS
    found = report.to_arrow(["n"])["n"].to_pylist()
    assert found == [n for n in range(ROWS) if n not in DEAD]
    assert report.dead_letters()["n"].to_pylist() == DEAD
    again = pipemill.read(report.output, ["n"], storage_options=options)
    assert again.to_table()["n"].to_pylist() == found
    assert sum(batch.num_rows for batch in again.to_batches()) == again.count_rows()
    filesystem, root = open_filesystem(report.output, options)
    stored = b"".join(filesystem.cat_file(path) for path in filesystem.find(root))
    assert s3_server.SECRET.encode() not in stored
    assert s3_server.SECRET not in repr(pipemill.Job(**{**wanted, "model": {"path": "m"}}))


def test_what_the_server_refuses_is_said_without_the_secret(bucket, tmp_path):
    missing = job("s3://nobucket-nobucket", tmp_path)
    with pytest.raises(pipemill.ConfigError, match=r"nobucket-nobucket"):
        pipemill.run(**missing)
    gone = job(bucket, tmp_path)
    gone["output"]["path"] = "s3://nobucket-nobucket/out"
    with pytest.raises(pipemill.ConfigError, match=r"can't write to the output s3://nobucket"):
        pipemill.run(**gone)
    wrong = job(bucket, tmp_path)
    options = {"key": s3_server.KEY, "secret": "wrong-but-secret"}
    wrong["input"] = {"path": wrong["input"], "storage_options": options}
    with pytest.raises(pipemill.ConfigError, match=r"signature|Forbidden|denied") as error:
        pipemill.run(**wrong)
    assert "wrong-but-secret" not in str(error.value)
    assert bucket in str(error.value)


def test_killed_at_any_moment_the_same_command_ends_with_every_row_once(bucket, tmp_path):
    wanted = job(bucket, tmp_path, rows_per_part=10)
    for wait in (2, 4):
        run = light.start("run", wanted, tmp_path, slow=0.02)
        filesystem, root = open_filesystem(f"{bucket}/out", {})
        until = time.monotonic() + 60
        while len(filesystem.glob(f"{root}/part-*")) < wait:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    assert 0 < len(rows_of(bucket)) < ROWS - len(DEAD)
    report = pipemill.run(**wanted)
    assert (report.rows, report.dead) == (ROWS, len(DEAD))
    check_rows(bucket)


@contextmanager
def away_after_two_parts(bucket, server, then):
    """Within it the server is stopped in the middle of the run."""
    filesystem, root = open_filesystem(f"{bucket}/out", {})

    def wait_and_stop():
        while len(filesystem.glob(f"{root}/part-*")) < 2:
            time.sleep(0.1)
        server.go_away()
        then()

    watcher = threading.Thread(target=wait_and_stop, daemon=True)
    watcher.start()
    yield
    watcher.join()


def test_a_server_that_is_away_for_a_moment_is_waited_for(server, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHT_SLOW", "0.02")
    with away_after_two_parts(bucket, server, lambda: (time.sleep(2), server.start())):
        report = pipemill.run(**job(bucket, tmp_path))
    assert (report.rows, report.dead) == (ROWS, len(DEAD))
    check_rows(bucket)


def test_one_that_stays_away_ends_the_run_which_resumes(
    server, bucket, tmp_path, monkeypatch, impatient
):
    monkeypatch.setenv("LIGHT_SLOW", "0.02")
    with (
        away_after_two_parts(bucket, server, lambda: None),
        pytest.raises(pipemill.RunError, match=r"run again to do the others") as error,
    ):
        pipemill.run(**job(bucket, tmp_path))
    server.start()
    assert "can't be reached, tried 3 times" in str(error.value)
    monkeypatch.delenv("LIGHT_SLOW")
    before = len(rows_of(bucket))
    report = pipemill.run(**job(bucket, tmp_path))
    assert report.added["done"] == ROWS - len(DEAD) - before
    check_rows(bucket)


def test_a_server_that_fails_in_between_is_asked_again(server, bucket, tmp_path, impatient):
    """Reads and writes alike, more often than the client tries by itself."""
    statuses = (500, 503, 0)
    met = {"GET": set(), "PUT": set()}

    def rule(method, path, times):
        number = re.search({"PUT": r"/out/part-(\d+)", "GET": r"/in/(\d+)"}.get(method, "$^"), path)
        if number is None or times >= 2:
            return None
        status = statuses[(int(number[1]) + times) % 3]  # for each path two of the three
        met[method].add(status)
        return status

    with Proxy(server.endpoint, rule) as proxy:
        options = {"endpoint_url": proxy.endpoint}
        options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 1}}
        wanted = job(bucket, tmp_path)
        wanted["input"] = {"path": wanted["input"], "storage_options": options}
        wanted["output"]["storage_options"] = options
        report = pipemill.run(**wanted)
    assert (report.rows, report.dead) == (ROWS, len(DEAD))
    assert met == {"GET": set(statuses), "PUT": set(statuses)}
    assert proxy.failed >= 2 * (2 + 6)
    check_rows(bucket)


def test_more_parts_than_a_page_of_a_listing_holds_are_listed(bucket, tmp_path):
    filesystem, root = open_filesystem(f"{bucket}/many", {})
    count = s3_server.PAGE * 5 // 2
    names = [f"part-{n:08d}-aaaaaaaaaaaa.parquet" for n in range(count)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: filesystem.pipe_file(f"{root}/{name}", b"x"), names))
    assert Ledger(Store(f"{bucket}/many")).parts() == set(names)
    bucket, _, folder = root.partition("/")
    page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{folder}/")
    assert (page["IsTruncated"], len(page["Contents"])) == (True, s3_server.PAGE)


def test_the_footers_of_many_parts_are_read_once(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LEAST_PARTS", 5)
    pipemill.run(job(bucket, tmp_path))
    opened, _, plan = ledger.open_output(f"{bucket}/out", None)
    first = opened.footers(plan.splits)
    read, real = [], Ledger._read_footer

    def read_footer(self, part):
        read.append(part)
        return real(self, part)

    monkeypatch.setattr(Ledger, "_read_footer", read_footer)
    assert opened.footers(plan.splits) == first
    assert read == []
    one, other = plan.splits[1].part, plan.splits[2].part
    opened.store.write(one, opened.store.read(other))
    assert opened.footers(plan.splits)[1].split == 2
    assert read == [one]


def test_a_large_part_is_uploaded_in_pieces_and_whole(bucket):
    filesystem, root = open_filesystem(f"{bucket}/large", {})
    data = os.urandom(110 * 2**20)
    write_atomic(filesystem, f"{root}/part", data)
    read = filesystem.cat_file(f"{root}/part")
    assert hashlib.sha256(read).digest() == hashlib.sha256(data).digest()
    assert json.dumps(filesystem.info(f"{root}/part")["ETag"]).count("-") == 1, "one piece only"


def test_rows_that_are_no_files_are_stored_there(bucket, tmp_path):
    texts = [{"text": text, "n": n} for n, text in enumerate(TEXTS)]
    for rows in (iter(texts), iter(())):
        report = pipemill.run(**{**job(bucket, tmp_path), "input": rows})
        assert (report.rows, report.dead) == (ROWS, len(DEAD))
    assert report.added["rows"] == 0
    assert rows_of(bucket) == [n for n in range(ROWS) if n not in DEAD]


def test_a_delta_table_is_read_there(bucket, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    table = pa.table({"n": range(ROWS), "text": TEXTS})
    deltalake.write_deltalake(f"{bucket}/table", table, storage_options={"AWS_ALLOW_HTTP": "true"})
    report = pipemill.run(**{**job(bucket, tmp_path), "input": f"{bucket}/table"})
    assert (report.rows, report.dead) == (ROWS, len(DEAD))
    assert sorted(rows_of(bucket)) == [n for n in range(ROWS) if n not in DEAD]


def test_a_folder_with_more_objects_than_a_page_is_listed_once(bucket, monkeypatch):
    monkeypatch.setattr(walk_files, "_TAKEN", 7)
    filesystem, root = open_filesystem(f"{bucket}/folder", {})
    names = [f"{root}/{n % 3}/{n:03}.txt" for n in range(s3_server.PAGE * 3 // 2)]
    names += [f"{root}/1/", f"{root}/_hidden/a.txt", f"{root}.txt"]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: filesystem.pipe_file(name, b"a"), names))
    pages = []

    async def note(self, method, *arguments, **keywords):
        if method == "list_objects_v2" and keywords.get("MaxKeys") != 1:
            pages.append(keywords)
        return await call(self, method, *arguments, **keywords)

    call = type(filesystem)._call_s3
    monkeypatch.setattr(type(filesystem), "_call_s3", note)
    found = listing.list_below(f"{bucket}/folder", {}, None)
    assert [file.path for file in found.files] == sorted(f"s3://{n}" for n in names[:-3])
    assert {(file.size, len(file.version)) for file in found.files} == {(1, 32)}
    assert len(pages) == 2


def test_an_object_that_is_written_again_during_a_run_is_named(bucket, tmp_path, monkeypatch):
    """Of as many bytes and rows as before: a part of each version would be read."""
    read, filesystem = RetryingSource.read, open_filesystem("s3://", {})[0]
    name = f"{bucket.removeprefix('s3://')}/in/1.parquet"
    old = filesystem.cat_file(name)

    def rewrite(source, split):
        if split.number == 4:
            filesystem.pipe_file(name, old.replace(b"text 7", b"TEXT 7"))
        return read(source, split)

    monkeypatch.setattr(RetryingSource, "read", rewrite)
    wanted = job(bucket, tmp_path)
    with pytest.raises(
        pipemill.RunError, match=r"4 of 6 splits(.|\n)*1\.parquet has changed since"
    ):
        pipemill.run(wanted)
    with pytest.raises(pipemill.ConfigError, match=r"1\.parquet has changed.*--on-changed"):
        pipemill.run(wanted)
