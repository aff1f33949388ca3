"""An output and an input that is not the one it was planned for: refused, or said."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import light


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


def write(path, texts):
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)
    return str(path)


@pytest.fixture
def t(tmp_path):
    return write(tmp_path / "t.parquet", [f"text {i}" for i in range(40)])


@pytest.fixture
def u(tmp_path):
    return write(tmp_path / "u.parquet", [f"other {i}" for i in range(25)])


def job(folder, given, **more):
    return {**light.job(folder, [], **more), "input": given}


def test_none_of_the_planned_files_is_refused_and_names_them(tmp_path, t, u, capsys):
    pipemill.run(job(tmp_path, t))
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(job(tmp_path, u)))
    assert main(["run", str(config)]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"holds rows of another input ({t}), and none of its files is in this one" in err
    assert pipemill.status(str(tmp_path / "out")).rows == 40
    assert pipemill.run(job(tmp_path, [t, u])).rows == 65, "added to them"


def test_some_of_the_planned_files_are_said(tmp_path, t, u, capsys):
    pipemill.run(job(tmp_path, [t, u]))
    more = write(tmp_path / "v.parquet", ["a", "b"])
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(job(tmp_path, [u, more])))
    assert main(["run", str(config)]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert (told["rows"], told["added"]["rows"]) == (67, 2)
    assert told["unnamed_input"] == {"rows": 40, "files": [t], "count": 1}
    assert f"40 rows of {t}, which the input no longer names" in err
    assert pipemill.run(job(tmp_path, [t, u, more])).unnamed_input is None
    report = pipemill.run(job(tmp_path, [more]))
    assert f"65 rows of {t} and 1 more file, which" in report._repr_html_()


def test_a_folder_that_holds_other_files_by_and_by_is_no_other_input(tmp_path, t, u):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shutil.move(t, inbox)
    pipemill.run(job(tmp_path, str(inbox)))
    (inbox / "t.parquet").unlink()
    shutil.move(u, inbox)
    report = pipemill.run(job(tmp_path, str(inbox)))
    assert (report.rows, report.added["rows"]) == (65, 25)
    assert report.unnamed_input["rows"] == 40
    glob = pipemill.run(job(tmp_path, f"{inbox}/*.parquet"))
    assert glob.unnamed_input["rows"] == 40


def test_a_relative_name_is_another_input_in_another_folder(tmp_path, t, u, monkeypatch):
    for folder, path in (("first", t), ("second", u)):
        (tmp_path / folder).mkdir()
        shutil.move(path, tmp_path / folder / "in.parquet")
    (tmp_path / "in.parquet").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path / "first")
    assert pipemill.run(job(tmp_path, "in.parquet")).rows == 40
    monkeypatch.chdir(tmp_path / "second")
    with pytest.raises(pipemill.ConfigError, match="holds rows of another input"):
        pipemill.run(job(tmp_path, "in.parquet"))
    with pytest.raises(pipemill.ConfigError, match="holds rows of another input"):
        pipemill.run(job(tmp_path, ["in.parquet"]))
    monkeypatch.chdir(tmp_path / "first")
    assert pipemill.run(job(tmp_path, "in.parquet")).rows == 40


def test_an_output_of_which_nothing_is_done_may_have_another_input(tmp_path, t, u, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipemill.pipelines.loading.task_loader.LoadTask.__call__", lambda self: 1 / 0
        )
        with pytest.raises(pipemill.ConfigError):
            pipemill.run(job(tmp_path, t))
    assert pipemill.run(job(tmp_path, u)).rows == 25
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_files_of_a_bundle_are_counted_one_by_one(tmp_path):
    names = [str(tmp_path / f"{name}.bin") for name in "abc"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    given = {"path": names, "format": "files", "columns": {"text": "path"}}
    assert pipemill.run(job(tmp_path, given)).rows == 3
    report = pipemill.run(job(tmp_path, {**given, "path": names[:1]}))
    assert report.unnamed_input == {"rows": 2, "files": names[1:], "count": 2}


def test_a_changed_file_is_told_with_sizes_and_dates(tmp_path, t):
    os.utime(t, (1_700_000_000, 1_700_000_000.25))
    size = os.path.getsize(t)
    pipemill.run(job(tmp_path, t))
    write(t, ["another"])
    now = os.path.getmtime(t)
    with pytest.raises(pipemill.ConfigError) as error:
        pipemill.run(job(tmp_path, t))
    message = str(error.value)
    dates = [
        datetime.fromtimestamp(when).astimezone().isoformat(" ", "milliseconds")
        for when in (1_700_000_000.25, now)
    ]
    assert f"(then {size:,} bytes, of {dates[0]}; now {os.path.getsize(t):,} bytes" in message
    assert f"of {dates[1]})" in message
    assert str(int(now)) not in message
    assert time.strftime("%Y") in message


def test_another_model_is_told_by_its_path_beside_the_digest(tmp_path, t):
    pipemill.run(job(tmp_path, t))
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    other = Path(shutil.copytree(tmp_path / "model", tmp_path / "other"))
    (other / "config.json").write_text('{"a": 1}')
    with pytest.raises(pipemill.ConfigError) as error:
        pipemill.run({**job(tmp_path, t), "model": str(other)})
    then = f"model ({tmp_path}/model, digest {record['decides']['model']} then, {other}, digest "
    assert then in str(error.value)
    with pytest.raises(pipemill.ConfigError) as error:
        pipemill.retry({**job(tmp_path, t), "model": str(other)})
    assert then in str(error.value)
    with pytest.raises(pipemill.ConfigError, match=r"parameters \(\{\} then, \{'healed': 2\} now"):
        pipemill.run({**job(tmp_path, t), "parameters": {"healed": 2}})
