"""What an output says of itself, without model or input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product

import pytest
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main
from pipemill.jobs.output.lease import Lease
from pipemill.jobs.output.lease_owner import identify_owner

import pipemill
from tests.support import light

TEXTS = [f"text {i}" if i % 7 else "bad1" for i in range(45)]
DEAD = sum(text == "bad1" for text in TEXTS)


@pytest.fixture
def out(tmp_path, monkeypatch):
    light.install(monkeypatch)
    pipemill.run(light.job(tmp_path, TEXTS))
    # From the output alone.
    (tmp_path / "in.parquet").unlink()
    shutil.rmtree(tmp_path / "model")
    return tmp_path / "out"


def test_rows_done_dead_and_left(out, capsys):
    found = pipemill.status(str(out))
    assert (found.rows, found.done, found.dead, found.left) == (45, 45 - DEAD, DEAD, 0)
    assert found.lease is None
    parts = sorted(out.glob("part-*"))
    parts[1].unlink()
    parts[4].unlink()
    gone = sum(text == "bad1" for text in TEXTS[9:18] + TEXTS[36:])
    assert main(["status", str(out), "--splits"]) == 0
    stdout, stderr = capsys.readouterr()
    told = json.loads(stdout)
    assert (told["rows"], told["left"], told["dead"]) == (27, 18, DEAD - gone)
    assert told["done"] + told["dead"] == told["rows"]
    assert (told["splits"], told["splits_left"], told["left_is_estimate"]) == (5, 2, False)
    assert "18 rows in 2 of 5 splits" in stderr
    assert stderr.count("in.parquet [") == 5


def test_rows_left_are_estimated_where_only_reading_tells(tmp_path, monkeypatch):
    light.install(monkeypatch)
    lines = "".join(json.dumps({"text": f"text {i:05}"}) + "\n" for i in range(2000))
    (tmp_path / "in.jsonl").write_text(lines)
    wanted = light.job(tmp_path, TEXTS, output={"rows_per_part": "auto"})
    pipemill.run({**wanted, "input": str(tmp_path / "in.jsonl")})
    for part in sorted((tmp_path / "out").glob("part-*"))[::2]:
        part.unlink()
    found = pipemill.status(str(tmp_path / "out"))
    assert found.left_is_estimate
    assert found.rows + found.left == pytest.approx(2000, rel=0.05)
    assert "about" in str(found)
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    assert "left          an unknown number of rows in" in str(pipemill.status(tmp_path / "out"))


def test_who_holds_it(out):
    with Lease(Store(str(out)), "retry") as lease:
        lease.acquire()
        found = pipemill.status(str(out))
        assert found.lease is not None
        assert (found.lease["verb"], found.lease["alive"]) == ("retry", True)
        assert "held by       `pipemill retry` of" in str(found)
    assert pipemill.status(str(out)).lease is None
    file = max((out / "_pipemill/lease").iterdir())
    there = replace(identify_owner("run"), machine="another", seen="2026-01-02T03:04:05+00:00")
    file.write_bytes(there.to_bytes())
    found = pipemill.status(str(out))
    assert found.lease is not None
    assert found.lease["alive"] is None
    assert "last seen 2026-01-02T03:04:05" in str(found)
    file.write_bytes(replace(identify_owner("run"), pid=2**22 + 1).to_bytes())
    assert pipemill.status(str(out)).lease is None


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_folder_that_is_no_output_is_a_wrong_command(tmp_path, verb, capsys):
    assert main([verb, str(tmp_path)]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "is not an output of pipemill" in stderr


FILES = ("job.json", "plan.parquet/rows")


@pytest.mark.parametrize(
    ("verb", "name", "data"),
    [
        # Whatever they hold: all verbs read them by the same functions.
        *product(["status"], FILES, [b"", b"{}", b"[]", b"PAR1 and no more"]),
        *product(["verify", "report", "run"], FILES, [b"{}"]),
    ],
)
def test_damaged_state_is_named_and_no_traceback(out, capsys, verb, name, data):
    (out / "_pipemill" / name).write_bytes(data)
    words = [verb, str(out)]
    if verb == "run":
        config = out.parent / "job.yaml"
        config.write_text(json.dumps(light.job(out.parent, TEXTS)))
        words = [verb, str(config)]
    assert main(words) in (1, 2)
    said = capsys.readouterr().err
    assert f"{out}/_pipemill/{name.removesuffix('/rows')} is damaged" in said
    assert "restore it, or name another output" in said
