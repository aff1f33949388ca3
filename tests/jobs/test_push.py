"""`pipemill push` and `run --push-to-hub`, with a server on loopback that stands for the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pipemill.actors.split import Split
from pipemill.jobs.output.hub_card import HubCard
from pipemill.jobs.output.job_record import JobRecord
from pipemill.jobs.push import _upload

import pipemill
from tests.support import light, without
from tests.support.hub_datasets import TOKEN, hub_datasets

ROOT = Path(pipemill.__file__).parent.parent
TEXTS = [f"text {n}" if n % 9 else "bad3" for n in range(40)]
NAME = "org/answers"
MORE = "- config_name: more\n  data_files: m.csv"


@pytest.fixture
def server():
    with hub_datasets() as server:
        yield server


@pytest.fixture
def wanted(tmp_path):
    return light.job(tmp_path, TEXTS)


def environment(server, tmp_path, token=TOKEN):
    """What the library reads once, when a process imports it."""
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf")}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    return settings | ({"HF_TOKEN": token} if token else {})


def call(server, tmp_path, *words, status=0):
    """Run a command in a process; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.light", *map(str, words)],
        env={**os.environ, **environment(server, tmp_path)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None, done.stderr


def download(server, folder):
    for path, data in server.files[NAME].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_a_run_publishes_its_rows_and_a_card(server, wanted, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(wanted))
    words = ["run", "job.json", "--push-to-hub", NAME, "--private"]
    said, stderr = call(server, tmp_path, *words)
    assert said["published"] == f"{server.url}/datasets/{NAME}"
    assert f"published     {said['published']}" in stderr
    assert server.private == {NAME}
    parts = sorted(file.name for file in (tmp_path / "out").glob("part-*"))
    assert sorted(server.files[NAME]) == ["README.md", *(f"data/{part}" for part in parts)]
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("out/**/*") if file.is_file())
    assert TOKEN.encode() not in stored

    card = server.files[NAME]["README.md"].decode()
    record = json.loads((tmp_path / "out/_pipemill/job.json").read_text())
    for text in (
        "# answers\n", "- **Task:** lengths\n", "- **Model:** model\n", record["decides"]["model"],
        "35 of 40; 5 could not be computed and are left out", "| `length` | `int32` |",
        f"pipemill {pipemill.__version__}",
    ):  # fmt: skip
        assert text in card
    assert str(tmp_path) not in card
    rows = datasets.load_dataset(
        str(download(server, tmp_path / "copy")), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert rows.to_list() == ds.dataset(tmp_path / "out").to_table().to_pylist()

    # Nothing to do and nothing to publish.
    before = (dict(server.files[NAME]), len(server.commits), server.uploads)
    assert call(server, tmp_path, *words)[0]["published"] == said["published"]
    assert (server.files[NAME], len(server.commits), server.uploads) == before


def test_a_card_names_the_model_of_each_of_several_tasks():
    entries = [
        {"task": "fill-mask", "model": {"path": "org/one", "revision": "main"}, "name": "mask"},
        {"task": "feature-extraction", "model": {"path": "/home/me/two"}, "parameters": {"a": 1}},
    ]
    decides = {"mask.model": "d1", "mask.model.dtype": "auto", "feature-extraction.model": "d2"}
    record = JobRecord(
        job={**entries[0], "tasks": entries, "output": {"on_error": "dead_letter"}}, decides=decides
    )
    card = HubCard(name=NAME, record=record, schema=pa.schema([]), rows=3, dead=0, parts=1).render(
        None
    )
    for text in (
        "- **Task:** mask + feature-extraction\n",
        "- **Model of mask:** [org/one](https://huggingface.co/org/one)\n",
        "- **Revision of mask:** main\n- **Weights of mask:** d1, auto\n",
        "- **Model of feature-extraction:** two\n- **Weights of feature-extraction:** d2, None\n",
        '{"mask": {}, "feature-extraction": {"a": 1}}',
    ):
        assert text in card
    assert "/home/me" not in card


def test_what_changed_is_published_and_what_people_wrote_stays(server, wanted, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        light.install(patch)
        pipemill.run(wanted)
    said, _ = call(server, tmp_path, "push", "out", NAME)
    assert (said["name"], said["rows"], said["parts"]) == (NAME, 35, 4)
    assert said["commit"] == server.head()
    assert server.private == set()
    files = server.files[NAME]
    files["notes.txt"] = b"ours"
    files["data/part-00000007-0123456789ab.parquet"] = b"of another output"
    readme = files["README.md"].decode()
    files["README.md"] = (
        readme.replace("configs:", f"license: mit\nconfigs:\n{MORE}")
        .replace("# answers\n", "# Our answers\n\nRead this first.\n")
        .replace("<!-- pipemill: end -->", "<!-- pipemill: end -->\nAnd this last.")
        .encode()
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        light.install(patch)
        pipemill.retry({**wanted, "parameters": {"healed": 3}})
    said, _ = call(server, tmp_path, "push", "out", NAME)
    assert (said["rows"], said["commit"]) == (40, server.head())
    changed = dict.fromkeys(server.commits[-1])
    assert ("deletedFile", "data/part-00000007-0123456789ab.parquet") in changed
    assert sum(key == "lfsFile" for key, _ in changed) == 4
    card = files["README.md"].decode()
    for text in ("# Our answers\n\nRead this first.\n", "\nAnd this last.", "license: mit", "m.csv",
                 "- **Rows:** 40\n", "data/part-*.parquet"):  # fmt: skip
        assert card.count(text) == 1
    assert files["notes.txt"] == b"ours"


MANY = """if True:
    import runpy, sys
    from pipemill.jobs.output import hub_card
    hub_card.FOLDER_FILES = 3
    sys.argv = ["light", "push", *sys.argv[1:]]
    runpy.run_module("tests.support.light", run_name="__main__")
"""


def test_more_parts_than_the_hub_takes_in_a_folder_are_in_several(
    server, wanted, tmp_path, monkeypatch
):
    light.install(monkeypatch)
    pipemill.run(wanted)
    call(server, tmp_path, "push", "out", NAME)
    done = subprocess.run(
        [sys.executable, "-c", MANY, "out", NAME],
        env={**os.environ, **environment(server, tmp_path)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = sorted(file.name for file in (tmp_path / "out").glob("part-*"))
    places = [f"data/{number // 3:05}/{part}" for number, part in enumerate(parts)]
    assert len(parts) == 4
    assert sorted(server.files[NAME]) == ["README.md", *places], "the old places are empty"
    rows = datasets.load_dataset(
        str(download(server, tmp_path / "copy")), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert rows.to_list() == ds.dataset(tmp_path / "out").to_table().to_pylist()


REFUSED = {
    TOKEN: [
        (["out", "a/b/c"], 2, "'a/b/c' is not a name on the Hub"),
        (["half", NAME], 2, "half is not complete: 1 of 4 splits have no part yet. Run the"),
        (["model", NAME], 2, "model is not an output of pipemill"),
        (["out", "org/public", "--private"], 2, "the dataset org/public exists and is pub"),
        (["out", "org/refused"], 1, "You may not write here; use a token that may write to"),
    ],
    "": [(["out", NAME], 2, "log in with `hf auth login`, or set HF_TOKEN")],
    "hf_wrong": [(["out", NAME], 1, f"; use a token that may write to {NAME}")],
}


@pytest.mark.parametrize("token", REFUSED)
def test_what_can_not_be_published_is_said(server, wanted, tmp_path, monkeypatch, token):
    light.install(monkeypatch)
    pipemill.run(wanted)
    shutil.copytree(tmp_path / "out", tmp_path / "half")
    next((tmp_path / "half").glob("part-*")).unlink()
    server.files["org/public"] = {}
    server.refuses = "/api/datasets/org/refused/commit"
    for name, value in environment(server, tmp_path, token).items():
        monkeypatch.setenv(name, value)
    commands = [["push", *words] for words, *_ in REFUSED[token]]
    # One process for all that share a token.
    done = without.run((), tmp_path, *commands)
    for (got, out, err), (_, status, message) in zip(done, REFUSED[token], strict=True):
        *_, line, _ = err.splitlines()
        assert (got, out) == (status, ""), err
        assert message in line
        assert TOKEN not in err
        assert "Traceback" not in err
    assert not server.commits


def test_a_name_is_checked_before_a_row_is_computed(server, wanted, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(wanted))
    for words, message in (
        (["--push-to-hub", "a/b/c"], "'a/b/c' is not a name on the Hub"),
        (["--private"], "private is about push_to_hub: name the dataset to publish in, too"),
    ):
        _, stderr = call(server, tmp_path, "run", "job.json", *words, status=2)
        assert message in stderr
    assert not (tmp_path / "out").exists()


def test_rows_that_could_not_be_published_are_computed_and_said(server, wanted, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(wanted))
    server.refuses = "/api/repos/create"
    words = ["run", "job.json", "--push-to-hub", NAME]
    said, stderr = call(server, tmp_path, *words, status=1)
    assert (said["rows"], said["done"]) == (40, 35)
    assert f"can't publish {NAME} on {server.url}" in stderr.splitlines()[-1]


def test_without_the_hub_nothing_is_published(wanted, tmp_path, monkeypatch):
    light.install(monkeypatch)
    pipemill.run(wanted)
    with pytest.raises(pipemill.ConfigError, match=f"can't publish {NAME}: HF_HUB_OFFLINE is set"):
        pipemill.push(str(tmp_path / "out"), NAME)
    with pytest.raises(pipemill.ConfigError, match="is not an output of pipemill"):
        pipemill.push(str(tmp_path / "anywhere"), NAME)


def test_parts_are_uploaded_together_up_to_so_many_bytes(monkeypatch):
    monkeypatch.setattr("pipemill.jobs.push._UPLOAD_BYTES", 25)
    uploaded = []

    def upload(repo, batch, repo_type):
        uploaded.append([one.upload_info.size for one in batch])

    splits = [Split(n, "in.csv", 100, "etag", n, n + 1) for n in range(7)]
    hub, ledger = SimpleNamespace(preupload_lfs_files=upload), SimpleNamespace(path="out")
    ledger.read = lambda part: b"x" * 10
    assert len(list(_upload(hub, "org/name", ledger, splits))) == 7
    assert uploaded == [[10, 10, 10], [10, 10, 10], [10]]
