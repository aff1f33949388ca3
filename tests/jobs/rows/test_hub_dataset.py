"""Datasets on the Hub by name, against a server on loopback that answers like it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipemill.jobs.planning.find_inputs import list_files
from pipemill.jobs.rows.hub_dataset import HubDataset, parse_hub_dataset

import pipemill
from tests.support import hub_server, light

CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/tr*.jsonl}
  - {split: test, path: data/te.jsonl}
---
"""

_RUN_EACH = """
import contextlib, io, json, sys
from pipemill.jobs.cli.app import main
from tests.support import light
light.install()
for line in sys.stdin:
    path, output = json.loads(line)
    words = ["run", "--task", "lengths", "--model", sys.argv[1], "--set", "actors.placement=local"]
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        status = main([*words, "--input", path, "--output", output])
    print(json.dumps([status, err.getvalue()]), flush=True)
"""


def test_a_name_is_told_from_a_path():
    for path, expected in {
        "hf://datasets/org/data": ("org/data", None, None, None),
        "hf://datasets/squad?split=train": ("squad", None, "train", None),
        "hf://datasets/org/data@v1?split=a&config=en": ("org/data", "v1", "a", "en"),
    }.items():
        name, revision, split, config = expected
        assert parse_hub_dataset(path) == HubDataset(
            name=name, revision=revision, split=split, config=config
        )
    for path in ("hf://datasets/org/data/train.csv", "hf://datasets/org/*", "hf://org/model", "/a"):
        assert parse_hub_dataset(path) is None
    with pytest.raises(pipemill.ConfigError, match="'spilt' is unknown; did you mean 'split'"):
        parse_hub_dataset("hf://datasets/org/data?spilt=train")
    page = "https://huggingface.co/datasets/org/data"
    for path in (page, f"{page}/", f"{page}/tree/main", f"{page}/blob/main/a.parquet"):
        with pytest.raises(pipemill.ConfigError, match=r"as hf://datasets/org/data, or its files"):
            list_files(path, "auto", {}, None)
    for path in (f"{page}/resolve/main/a.parquet", "https://huggingface.co/datasets/org"):
        assert parse_hub_dataset(path) is None


def test_a_path_that_the_hub_has_no_place_for_is_refused_in_one_line():
    pytest.importorskip("huggingface_hub")
    for path in ("hf://", "hf://datasets/"):
        with pytest.raises(pipemill.ConfigError, match=r"^can't list the input hf://") as told:
            list_files(path, "auto", {}, None)
        assert "\n" not in str(told.value)


def test_a_dataset_split_is_read_in_one_commit(tmp_path, monkeypatch):
    light.job(tmp_path, ["unused"])
    data = tmp_path / "repository/data"
    data.mkdir(parents=True)
    data.parent.joinpath("README.md").write_text(CARD)
    for name, texts in {"tr0": "ab", "tr1": "c", "te": "t"}.items():
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        data.joinpath(f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/train.csv").write_text("text\nx\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"?")
    repositories = {
        "datasets/org/data": data.parent,
        "datasets/org/plain": tmp_path / "plain",
        "datasets/org/pictures": tmp_path / "pictures",
    }
    with hub_server.hub(repositories) as (url, _):
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf")}
        env["PYTHONPATH"] = str(Path(pipemill.__file__).parent.parent)
        env.pop("HF_HUB_OFFLINE", None)
        with subprocess.Popen(
            [sys.executable, "-c", _RUN_EACH, str(tmp_path / "model")],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip

            def run(path, output):
                process.stdin.write(json.dumps([path, str(tmp_path / output)]) + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            def texts(output):
                return pipemill.read(str(tmp_path / output)).to_table()["text"].to_pylist()

            train = "hf://datasets/org/data?split=train"
            assert run(train, "train")[0] == 0
            assert texts("train") == ["a", "b", "c"]
            # A later commit is not read by an output that has begun, but by a new one.
            first = hub_server.COMMIT
            monkeypatch.setattr(hub_server, "COMMIT", "f" * 40)
            min((tmp_path / "train").glob("part-*")).unlink()
            assert run(train, "train")[0] == 0
            assert texts("train") == ["a", "b", "c"]
            assert run(train, "new")[0] == 0
            read = {name: pipemill.status(str(tmp_path / name)).each for name in ("train", "new")}
            commits = {
                name: {split["input"].partition("@")[2][:40] for split in splits}
                for name, splits in read.items()
            }
            assert commits == {"train": {first}, "new": {hub_server.COMMIT}}
            assert run("hf://datasets/org/plain", "of-plain")[0] == 0
            assert texts("of-plain") == ["x"]
            for path, message in {
                "hf://datasets/org/data": r"holds several dataset splits (train, test): name one",
                "hf://datasets/org/data?split=tran": "has no dataset split 'tran'; did you mean",
                "hf://datasets/org/data?config=x": "BuilderConfig 'x' not found",
                "hf://datasets/org/none": "can't find the dataset org/none on the Hub",
                "hf://datasets/org/plain/b.csv": "hf://datasets/org/plain/b.csv does not exist",
                "hf://datasets/org/pictures": "is read by the imagefolder builder of datasets",
            }.items():
                status, stderr = run(path, "wrong")
                assert status == 2
                assert message in stderr
            process.stdin.close()
