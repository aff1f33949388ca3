"""Names of files that look like something else: a chain of URLs, a pattern, an escape."""

from __future__ import annotations

import json
import zipfile

import fsspec
import pytest
from pipemill.actors.sources.registry import format_of
from pipemill.actors.storage.file_names import find_compression, find_member, is_chain
from pipemill.actors.storage.filesystem import make_absolute
from pipemill.jobs.config.job import InputSection
from pipemill.jobs.planning.media_roots import find_media_roots

import pipemill
from pipemill.errors import ConfigError
from tests.actors.storage.test_partitions import FORMATS
from tests.support import light
from tests.support.splits import plan, read, rows

NAMES = ["run::1", "zip::2", "a b", "a#b?c", "a%20b", "[x]*", "é 漢", "s3::x::y", "q=1"]


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """The URL of an empty folder."""
    if request.param == "local":
        return str(tmp_path / "in::side")
    return f"memory://{tmp_path.name}"


def put(place, name, data):
    if "://" in place:
        protocol, _, rest = place.partition("://")
        slash = "/" if protocol == "memory" else ""
        fsspec.filesystem(protocol).pipe_file(f"{slash}{rest}/{name}", data)
    else:
        fsspec.filesystem("file", auto_mkdir=True).pipe_file(f"{place}/{name}", data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_listed_names_are_names_and_nothing_else(place, suffix):
    check_names(place, suffix)


def check_names(place, suffix):
    for number, name in enumerate(NAMES):
        write = FORMATS[suffix]
        end = suffix.upper() if number == 2 and suffix != "jsonl.gz" else suffix
        put(place, f"{name}.{end}", write(name))
    made = plan(place)
    assert len(list(made.files())) == len(NAMES)
    got = {row.get("text") or row["bytes"].decode() for row in rows(read(made))}
    assert got == set(NAMES)
    one = f"{place}/run::1.{suffix}"
    assert [file.path.rpartition("/")[2] for file in plan(one).files()] == [f"run::1.{suffix}"]
    assert len(rows(read(plan(one)))) == 1


def test_names_in_archives_and_chains_of_the_users_own(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for name in ("b/run::1.jsonl", "b/2.jsonl"):
            made.writestr(name, json.dumps({"text": name}))
    whole = [f"zip://::{archive}", f"zip://b/*::{archive}", f"zip://::file://{archive}"]
    for path in (*whole, f"zip://::simplecache::file://{archive}"):
        made = plan(path)
        assert {row["text"] for row in rows(read(made))} == {"b/run::1.jsonl", "b/2.jsonl"}
    assert [row["text"] for row in rows(read(plan(f"zip://b/2.jsonl::{archive}")))] == ["b/2.jsonl"]
    odd = f"zip://b/run::1.jsonl::{archive}"
    assert [row["text"] for row in rows(read(plan(odd)))] == ["b/run::1.jsonl"]
    (tmp_path / "c.jsonl").write_text('{"text": "cached"}')
    cached = plan(f"simplecache::file://{tmp_path}/c.jsonl")
    assert [row["text"] for row in rows(read(cached))] == ["cached"]


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("/in/run::1.jsonl", None),
        ("run::1.jsonl", None),
        ("s3://b/run::1.jsonl", None),
        ("memory://b/zip::s3://x.jsonl", None),
        ("https://host/a::b.jsonl", None),
        ("/in/zip::a.jsonl", None),
        ("zip://a.jsonl::/x/a.zip", "zip://a.jsonl"),
        ("zip://a::b.jsonl::s3://x/a.zip", "zip://a::b.jsonl"),
        ("zip://a.jsonl::simplecache::s3://x/a.zip", "zip://a.jsonl"),
        ("tar://a.jsonl::a.tar", "tar://a.jsonl"),
        ("simplecache::s3://x/a.jsonl", "simplecache::s3://x/a.jsonl"),
    ],
)
def test_what_is_a_chain(path, member):
    assert is_chain(path) == (member is not None)
    assert find_member(path) == (member or path)
    assert format_of(path) == "jsonl"
    joined = member is not None or "://" in path or path.startswith("/")
    assert (make_absolute(path) == path) == joined


def test_media_are_looked_for_beside_an_oddly_named_file(tmp_path):
    (tmp_path / "run::1.jsonl").write_text("{}")
    assert find_media_roots(InputSection(path=str(tmp_path / "run::1.jsonl"))) == (str(tmp_path),)
    assert find_media_roots(InputSection(path="s3://b/in/run::1.jsonl")) == ("s3://b/in",)
    assert find_media_roots(InputSection(path="s3://b/a::b/c.jsonl")) == ("s3://b/a::b",)
    assert find_media_roots(InputSection(path="zip://a.jsonl::/x/a.zip")) == ()


def test_a_job_writes_to_an_oddly_named_folder(tmp_path, monkeypatch):
    light.install(monkeypatch)
    folder = tmp_path / "a::b"
    folder.mkdir()
    job = light.job(folder, ["one"])
    assert pipemill.run(job).rows == 1
    assert pipemill.run(job).added["rows"] == 0
    assert pipemill.verify(str(folder / "out")).ok


def test_a_relative_path_below_a_removed_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert make_absolute("/a/b") == "/a/b"
    with pytest.raises(ConfigError, match="out is relative, and the current folder no longer"):
        make_absolute("out")


@pytest.mark.parametrize(
    ("url", "format", "compression"),
    [
        ("https://h/a.jsonl?sig=x%2Fy.csv", "jsonl", None),
        ("https://h/a.csv.gz?sig=x#row.txt", "csv", "gzip"),
        ("http://h/a.parquet#row", "parquet", None),
        ("https://h/download?file=a.tsv", "csv", None),
        ("https://h/?id=3", None, None),
        ("s3://b/a?b/c#1.jsonl", "jsonl", None),
    ],
)
def test_the_query_of_a_web_address_is_no_part_of_the_name(url, format, compression):
    assert (format_of(url), find_compression(url)) == (format, compression)
