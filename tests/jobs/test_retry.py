"""Dead letters tried again: in their place, in order, exactly once, however often it is killed."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pipemill.jobs.cli.app import main

import pipemill
from tests.support import light


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


def table(out):
    return ds.dataset(out).to_table()


def letters(out):
    folder = out / "_pipemill/dead-letter"
    return ds.dataset(folder).to_table().to_pylist() if any(folder.glob("*")) else []


def put_letters_in_folders(out):
    """Give an output the form that its dead letters had for a while."""
    for file in (out / "_pipemill/dead-letter").iterdir():
        data = file.read_bytes()
        file.unlink()
        file.mkdir()
        (file / "rows").write_bytes(data)


def truth(tmp_path, texts, **more):
    """What a run says that knew better from the start."""
    folder = tmp_path / "truth"
    folder.mkdir(exist_ok=True)
    pipemill.run(light.job(folder, texts, **more))
    return table(folder / "out")


TEXTS = [f"text {i}" if i % 7 else f"bad{i % 3 + 1}" for i in range(60)]


def test_letters_in_folders_are_retried_and_checked(tmp_path):
    wanted = light.job(tmp_path, TEXTS)
    first = pipemill.run(wanted)
    put_letters_in_folders(tmp_path / "out")
    assert pipemill.verify(str(tmp_path / "out")).findings == []
    assert pipemill.read(tmp_path / "out", dead_letters=True).count_rows() == first.dead
    one = pipemill.retry({**wanted, "parameters": {"healed": 1}})
    assert 0 < one.dead < first.dead
    assert len(letters(tmp_path / "out")) == one.dead
    assert pipemill.verify(str(tmp_path / "out")).findings == []
    assert pipemill.retry({**wanted, "parameters": {"healed": 3}}).dead == 0
    assert letters(tmp_path / "out") == []
    assert pipemill.verify(str(tmp_path / "out")).findings == []


@pytest.mark.parametrize("on_error", ["dead_letter", "null"])
def test_answers_go_where_they_belong_and_attempts_are_counted(tmp_path, on_error):
    wanted = light.job(tmp_path, TEXTS, output={"on_error": on_error})
    first = pipemill.run(wanted)
    one = pipemill.retry({**wanted, "parameters": {"healed": 1}})
    healed = sum(text == "bad1" for text in TEXTS)
    assert one.added == {"rows": first.dead, "done": healed, "dead": first.dead - healed} | {
        "splits": one.added["splits"]
    }
    assert (one.rows, one.dead) == (60, first.dead - healed)
    assert {letter["attempts"] for letter in letters(tmp_path / "out")} == {2}
    assert pipemill.verify(str(tmp_path / "out")).findings == []
    pipemill.retry({**wanted, "parameters": {"healed": 2}})
    left = letters(tmp_path / "out")
    assert [letter["n"] for letter in left] == [i for i in range(60) if TEXTS[i] == "bad3"]
    assert {letter["attempts"] for letter in left} == {3}
    assert {letter["message"] for letter in left} == {"bad3 is not healed"}
    last = pipemill.retry({**wanted, "parameters": {"healed": 3}})
    assert (last.rows, last.done, last.dead) == (60, 60, 0)
    assert letters(tmp_path / "out") == []
    expected = truth(tmp_path, TEXTS, output={"on_error": on_error}, parameters={"healed": 3})
    assert table(tmp_path / "out").equals(expected)
    assert pipemill.verify(str(tmp_path / "out")).notes == []


def test_the_part_says_which_rows_have_other_settings_and_the_job_goes_on(tmp_path):
    wanted = light.job(tmp_path, TEXTS)
    pipemill.run(wanted)
    pipemill.retry({**wanted, "parameters": {"healed": 9}})
    part = min((tmp_path / "out").glob("part-*"))
    notes = json.loads(pq.read_metadata(part).metadata[b"pipemill"])
    ((fingerprint, rows),) = notes["retried"].items()
    assert rows == [[0, 1], [7, 8]]
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    assert record["retries"][fingerprint]["parameters"] == {"healed": 9}
    assert pipemill.run(wanted).added["splits"] == 0
    with pytest.raises(pipemill.ConfigError, match="another job"):
        pipemill.run({**wanted, "parameters": {"healed": 9}})


def test_what_may_not_change_is_refused(tmp_path):
    wanted = light.job(tmp_path, TEXTS)
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.retry(wanted)
    pipemill.run(wanted)
    before = table(tmp_path / "out")
    with pytest.raises(pipemill.ConfigError, match=r"another job: output\.keep"):
        pipemill.retry({**wanted, "output": {**wanted["output"], "keep": ["n"]}})
    (tmp_path / "model/more").write_text("other weights")
    with pytest.raises(pipemill.ConfigError, match="another job: model "):
        pipemill.retry(wanted)
    (tmp_path / "model/more").unlink()
    with pytest.raises(pipemill.RunError, match=r"other|columns .*cased"):
        pipemill.retry({**wanted, "parameters": {"healed": 9, "cased": True}})
    assert table(tmp_path / "out").equals(before)
    assert pipemill.verify(str(tmp_path / "out")).findings == []
    (tmp_path / "in.parquet").touch()
    (tmp_path / "in.parquet").rename(tmp_path / "away")
    message = r"in\.parquet no longer exists, and its dead letters .* put it back"
    with pytest.raises(pipemill.ConfigError, match=message):
        pipemill.retry(wanted)
    (tmp_path / "away").rename(tmp_path / "in.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"in\.parquet has changed"):
        pipemill.retry({**wanted, "parameters": {"healed": 9}})


def test_dead_letters_of_a_file_that_is_gone_stay_and_the_others_are_tried(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.txt").write_text(f"{name}\nbad1\n")
    wanted = light.job(tmp_path, []) | {"input": str(tmp_path / "in")}
    assert pipemill.run(wanted).dead == 3
    (tmp_path / "in/b.txt").rename(tmp_path / "b")
    healed = {**wanted, "parameters": {"healed": 1}}
    report = pipemill.retry(healed)
    assert (report.added["rows"], report.dead) == (2, 1)
    said = " ".join(capsys.readouterr().err.split())
    assert "dead letters of 1 split are left as they are, since" in said
    assert "in/b.txt no longer exists: put it back, and retry again" in said
    with pytest.raises(pipemill.ConfigError, match=r"b\.txt no longer exists.*put it back"):
        pipemill.retry(healed)
    (tmp_path / "b").rename(tmp_path / "in/b.txt")
    assert pipemill.retry(healed).dead == 0
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_a_picture_that_is_gone_leaves_the_others_of_its_bundle(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.jpg").write_bytes(b"bad1" if name < "c" else b"c")
    source = {"path": str(tmp_path / "in"), "format": "files", "columns": {"text": "bytes"}}
    wanted = light.job(tmp_path, []) | {"input": source}
    assert pipemill.run(wanted).dead == 2
    (tmp_path / "in/a.jpg").unlink()
    report = pipemill.retry({**wanted, "parameters": {"healed": 1}})
    assert (report.added["rows"], report.dead) == (2, 1)
    assert [one["error"] for one in letters(tmp_path / "out")] == ["FileNotFoundError"]


def test_rows_that_could_not_be_read_are_tried_too(tmp_path):
    lines = [json.dumps({"text": f"text {i}"}) for i in range(30)]
    lines[3], lines[17] = "{", '{"text": "bad1"}'
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    wanted = light.job(tmp_path, []) | {"input": str(tmp_path / "in.jsonl")}
    assert pipemill.run(wanted).dead == 2
    report = pipemill.retry({**wanted, "parameters": {"healed": 1}})
    assert (report.added["rows"], report.added["done"], report.dead) == (2, 1, 1)
    assert [(d["row"], d["stage"], d["attempts"]) for d in letters(tmp_path / "out")] == [
        (3, "read", 2)
    ]


def test_splits_without_a_part_are_left_to_run(tmp_path, capsys):
    wanted = light.job(tmp_path, TEXTS)
    pipemill.run(wanted)
    (tmp_path / "out").joinpath(max((tmp_path / "out").glob("part-*")).name).unlink()
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps({**wanted, "parameters": {"healed": 9}}))
    assert main(["retry", str(config)]) == 1
    assert "1 of 6 splits have no part yet: do them with run" in capsys.readouterr().err
    pipemill.run(wanted)
    assert main(["retry", str(config)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["rows"], told["done"], told["dead"]) == (60, 60, 0)


class Killed(KeyboardInterrupt):
    """What no worker catches."""


@pytest.mark.parametrize("on_error", ["dead_letter", "null"])
def test_killed_before_any_of_its_writes_nothing_is_lost(tmp_path, monkeypatch, on_error):
    """Between the part and its letters, between two splits, everywhere."""
    from fsspec.implementations.local import LocalFileSystem
    from pipemill.actors.storage import store

    wanted = light.job(tmp_path, TEXTS, output={"on_error": on_error})
    pipemill.run(wanted)
    expected = truth(tmp_path, TEXTS, output={"on_error": on_error}, parameters={"healed": 2})
    write, remove, notes = store.write_atomic, LocalFileSystem.rm_file, []
    for calls in range(40):
        left = [calls]

        def counted(do, left=left):
            def wrapped(*arguments):
                if "_pipemill/lease" not in str(arguments):
                    left[0] -= 1
                    if left[0] < 0:
                        raise Killed
                return do(*arguments)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(store, "write_atomic", counted(write))
            patch.setattr(LocalFileSystem, "rm_file", counted(remove))
            try:
                pipemill.retry({**wanted, "parameters": {"healed": 2}})
                break
            except Killed:
                pass
        found = pipemill.verify(str(tmp_path / "out"))
        assert (found.findings, found.rows) == ([], 60)
        notes += found.notes
    assert calls > 2
    assert any("which have an answer" in note for note in notes), "never killed in between"
    assert table(tmp_path / "out").equals(expected)
    assert {letter["text"] for letter in letters(tmp_path / "out")} == {"bad3"}
    assert pipemill.verify(str(tmp_path / "out")).notes == []


def test_killed_at_random_moments_every_row_is_there_once(tmp_path):
    rng = random.Random(7)
    texts = [f"bad{rng.randint(1, 3)}" if rng.random() < 0.7 else f"text {i}" for i in range(300)]
    wanted = light.job(tmp_path, texts)
    pipemill.run(wanted)
    wanted["parameters"] = {"healed": 2}
    kills = 0
    for _ in range(3):
        before = len(letters(tmp_path / "out"))
        process = light.start("retry", wanted, tmp_path, slow=0.002)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError, ValueError):  # files that go away in the middle of a look
                if len(letters(tmp_path / "out")) < before:
                    break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)
        kills += process.poll() is None
        process.kill()
        process.communicate()
        found = pipemill.verify(str(tmp_path / "out"))
        assert (found.findings, found.rows) == ([], 300)
    assert kills, "it ended before it could be killed"
    report = pipemill.retry(wanted)
    assert (report.rows, report.dead) == (300, texts.count("bad3"))
    assert table(tmp_path / "out").equals(truth(tmp_path, texts, parameters={"healed": 2}))
    assert pipemill.verify(str(tmp_path / "out")).notes == []


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # each is a second: no time to shrink
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    bad=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    rows_per_part=st.integers(1, 15),
    steps=st.lists(st.integers(0, 4), max_size=3),
    on_error=st.sampled_from(["dead_letter", "null"]),
)
def test_any_rows_in_any_splits_over_any_number_of_retries(
    tmp_path_factory, bad, rows_per_part, steps, on_error
):
    tmp_path = tmp_path_factory.mktemp("any")
    texts = [f"bad{level}" if level else f"text {i}" for i, level in enumerate(bad)]
    output = {"on_error": on_error}
    wanted = light.job(tmp_path, texts, rows_per_part, output=output)
    pipemill.run(wanted)
    for healed in steps:
        pipemill.retry({**wanted, "parameters": {"healed": healed}})
        found = pipemill.verify(str(tmp_path / "out"))
        assert (found.findings, found.notes, found.rows) == ([], [], len(bad))
    expected = truth(
        tmp_path, texts, rows_per_part=rows_per_part, output=output,
        parameters={"healed": max([0, *steps])},
    )  # fmt: skip
    got = table(tmp_path / "out")
    assert got.sort_by("n").equals(got)
    assert got.to_pylist() == expected.to_pylist()
    dead = [i for i, level in enumerate(bad) if level > max([0, *steps])]
    assert [letter["n"] for letter in letters(tmp_path / "out")] == dead
