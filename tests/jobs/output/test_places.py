"""Where no output can be: one line before anything is written."""

from __future__ import annotations

import errno
import os

import pytest
from pipemill.actors.storage.filesystem import create_exclusive, open_filesystem
from pipemill.actors.storage.store import Store
from pipemill.jobs.output import lease
from pipemill.jobs.output.ledger import Ledger

import pipemill
from pipemill.errors import ConfigError, RunError
from tests.support import light


@pytest.mark.parametrize("verb", [pipemill.run, pipemill.retry])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("dangling", "dangling is a link to /no/where, which does not exist; name another folder"),
        ("dangling/out", "dangling is a link to /no/where, which does not exist"),
        ("file", "file is a file, not a folder"),
        ("file/out/deep", "file is a file, not a folder"),
        ("nul\0l", "'output.path' in the job: must not hold the character NUL"),
        ("/proc/out", "can't write to the output /proc/out|can't list|is not an output"),
        ("long" * 100, "File name too long"),
    ],
)
def test_a_place_where_no_folder_can_be_is_said(verb, place, said, tmp_path, monkeypatch):
    light.install(monkeypatch)
    (tmp_path / "dangling").symlink_to("/no/where")
    (tmp_path / "file").write_text("mine")
    wanted = light.job(tmp_path, ["a"], output={"path": str(tmp_path / place)})
    with pytest.raises(ConfigError, match=said) as caught:
        verb(wanted)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_killed_process_was_writing_is_removed(tmp_path, monkeypatch):
    light.install(monkeypatch)
    wanted = light.job(tmp_path, ["a"])
    pipemill.run(wanted)
    left = [
        tmp_path / "out" / folder / ".part-00000000-ab.parquet.cd.tmp"
        for folder in ("", "_pipemill/dead-letter", "_pipemill/attempts")
    ]
    state = tmp_path / "out/_pipemill"
    left += [state / "log/.00000001.log.cd.tmp", state / "plan.parquet/.rows.cd.tmp"]
    left.append(state / ".job.json.cd.tmp")
    mine = tmp_path / "out/.notes.tmp"
    for path in [*left, mine]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    pipemill.run(wanted)
    assert all(path.exists() for path in left), "a retry may be writing them"
    next((tmp_path / "out").glob("part-*")).unlink()
    pipemill.run(wanted)
    assert not any(path.exists() for path in left)
    assert mine.exists()


def test_the_plan_of_an_older_version_is_a_file_and_stays(tmp_path):
    plan = tmp_path / "_pipemill/plan.parquet"
    plan.parent.mkdir()
    plan.write_text("rows")
    Ledger(Store(str(tmp_path), {})).remove_unfinished()
    assert plan.read_text() == "rows"


def test_a_link_to_a_folder_is_an_output(tmp_path, monkeypatch):
    light.install(monkeypatch)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    report = pipemill.run(light.job(tmp_path, ["a"], output={"path": str(tmp_path / "link")}))
    assert report.rows == 1
    assert list((tmp_path / "real").glob("part-*"))


@pytest.mark.parametrize("place", [(lease, "create_exclusive"), (Store, "write")])
def test_a_full_disk_is_no_fault_of_the_job(tmp_path, monkeypatch, place):
    light.install(monkeypatch)

    def fail(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(*place, fail)
        with pytest.raises(RunError, match=r"can't write to the output .*No space .*; make room"):
            pipemill.run(light.job(tmp_path, ["a"]))
    assert pipemill.run(light.job(tmp_path, ["a"])).rows == 1


def test_a_file_where_a_lease_goes_ends_the_run(tmp_path, monkeypatch):
    """It is not taken for a lease that another process was faster to get, again and again."""
    light.install(monkeypatch)
    (tmp_path / "out/_pipemill").mkdir(parents=True)
    (tmp_path / "out/_pipemill/lease").write_text("")
    with pytest.raises(ConfigError, match="can't write to the output .*|can't read the output"):
        pipemill.run(light.job(tmp_path, ["a"]))
    (tmp_path / "dangling").symlink_to("/no/where")
    filesystem, path = open_filesystem(str(tmp_path / "dangling/file"), {})
    with pytest.raises(NotADirectoryError):
        create_exclusive(filesystem, path, b"")


@pytest.mark.parametrize("given", [3, {}, None, b"out", ""])
@pytest.mark.parametrize("verb", ["status", "verify", "read", "report"])
def test_what_is_no_path_names_no_output(verb, given):
    with pytest.raises(ConfigError, match="an output is named by its folder or URL, a text"):
        getattr(pipemill, verb)(given)


def test_the_root_of_a_filesystem_is_not_empty():
    assert sorted(Store("/").list_names()) == sorted(os.listdir("/"))
    assert Store("/").locate("part") == "/part"


@pytest.mark.parametrize("section", ["input", "output"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zip://rows.jsonl::text.zip", "BadZipFile: File is not a zip file"),
        ("tar://rows.jsonl::text.tar", "ReadError: "),
        ("zip://rows.jsonl::none.zip", "FileNotFoundError: .*none.zip"),
    ],
)
def test_what_is_no_archive_is_said(section, url, said, tmp_path, monkeypatch):
    light.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("text.zip", "text.tar"):
        (tmp_path / name).write_text("no archive")
    wanted = light.job(tmp_path, ["a"])
    with pytest.raises(ConfigError, match=f"can't open {url}: {said}"):
        pipemill.run({**wanted, section: url})
