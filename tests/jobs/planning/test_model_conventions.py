"""What a model's folder says: part of the fingerprint, and told in the summary."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.jobs import prepare
from pipemill.jobs.planning import model_conventions

import pipemill
from pipemill.errors import ConfigError
from tests.references import sentence_folders

VECTORS = json.loads(sentence_folders.VECTORS.read_text())


@pytest.fixture
def job(tmp_path):
    """A job of that folder's texts."""

    def make(name, **parameters):
        texts = VECTORS[name][0]["texts"]
        if not (tmp_path / "model").exists():
            pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
            sentence_folders.build(name, tmp_path / "model")
        return {
            "task": "feature-extraction",
            "model": str(tmp_path / "model"),
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "parameters": parameters,
            "actors": {"placement": "local"},
        }

    return make


@pytest.fixture
def old_output(monkeypatch):
    """Run a job as versions did that read no folder."""

    def run(job):
        with monkeypatch.context() as patched:
            for module in (prepare, model_conventions):
                patched.setattr(module, "follow_conventions", lambda job, task, *rest: task)
            pipemill.run(job)

    return run


def vectors_of(report):
    return np.array(ds.dataset(report.output).to_table()["embedding"].to_pylist())


def decides(report):
    with open(f"{report.output}/_pipemill/job.json") as file:
        return json.load(file)["decides"]


def test_a_run_follows_the_folder_and_says_so(job, capsys):
    report = pipemill.run(job("normalized", prompt_name="query"))
    np.testing.assert_allclose(vectors_of(report), VECTORS["normalized"][1]["vectors"], atol=1e-5)
    told = "cls, normalized; prompt 'query for a mill : '"
    assert report.pooling == told == decides(report)["pooling"]
    assert f"pooling       {told}" in str(report)
    assert json.loads(report.to_json())["pooling"] == told
    assert pipemill.run(job("normalized", prompt_name="query")).added["rows"] == 0


def test_the_command_line_says_what_is_wrong_with_the_folder(job, tmp_path, capsys):
    from pipemill.jobs.cli.app import main

    config = job("cls")
    config["model"] = str(tmp_path / "model")
    modules = json.loads((tmp_path / "model/modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    (tmp_path / "model/modules.json").write_text(json.dumps(modules))
    (tmp_path / "job.yaml").write_text(json.dumps(config))
    assert main(["run", str(tmp_path / "job.yaml")]) == 2
    said = capsys.readouterr().err
    assert "modules.json names the module LSTM (1_Pooling)" in said
    assert not (tmp_path / "out").exists()


def test_an_older_output_of_another_pooling_is_refused(job, old_output):
    old_output(job("normalized"))
    for again in (pipemill.run, pipemill.retry):
        with pytest.raises(ConfigError, match=r"pooling \('mean' then, 'cls, normalized' now\)"):
            again(job("normalized"))
    sampled = pipemill.verify(job("normalized")["output"], sample=4)
    assert not sampled.findings
    assert sampled.sample.transformers == 4


def test_an_older_output_of_the_same_pooling_goes_on(job, old_output):
    old_output(job("mean"))
    report = pipemill.run(job("mean"))
    assert (report.added["rows"], report.pooling) == (0, "mean")
    np.testing.assert_allclose(vectors_of(report), VECTORS["mean"][0]["vectors"], atol=1e-5)
    assert "pooling" not in decides(report)


def test_a_shorter_window_alone_makes_another_output(job, old_output, tmp_path):
    config, settings = job("mean"), tmp_path / "model/tokenizer_config.json"
    shorter = {**json.loads(settings.read_text()), "model_max_length": 20}
    settings.write_text(json.dumps(shorter))
    old_output(config)
    with pytest.raises(ConfigError, match=r"now\)") as raised:
        pipemill.run(config)
    assert "pooling ('mean' then, 'mean; at most 20 tokens at once' now)" in str(raised.value)


def test_verify_computes_the_folders_vectors_by_plain_transformers(job):
    report = pipemill.run(job("without_prompt_mean", prompt_name="query"))
    sampled = pipemill.verify(report.output, sample=5)
    assert not sampled.findings
    assert sampled.sample.transformers == 5
    assert sampled.sample.difference < 1e-5


def test_the_transformer_may_lie_in_a_lower_folder(job, tmp_path):
    report = pipemill.run(job("old_lower_folder"))
    expected = VECTORS["old_lower_folder"][0]["vectors"]
    np.testing.assert_allclose(vectors_of(report), expected, atol=1e-5)
    # What lies beside it decides the results, too.
    pooling = tmp_path / "model/1_Pooling/config.json"
    pooling.write_text(pooling.read_text().replace('"pooling_mode_cls_token": false', ""))
    with pytest.raises(ConfigError, match="model"):
        pipemill.run(job("old_lower_folder"))


def cached(home, name, folder):
    """Put a folder into a cache of the Hub, as if downloaded."""
    commit, place = "0" * 40, home / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


def test_a_model_of_the_hub_is_followed_like_a_folder(job, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home/hub"))
    config = job("dense")
    cached(tmp_path / "home", "some/dense", config["model"])
    cached(tmp_path / "home", "some/plain", sentence_folders.BASES / "bert")
    ran = {
        name: pipemill.run({**config, "model": f"some/{name}", "output": str(tmp_path / name)})
        for name in ("dense", "plain")
    }
    assert ran["dense"].pooling.endswith("Dense to 20, Tanh, normalized, Dense to 9, GELU")
    assert ran["plain"].pooling == "mean; no modules.json in the cache"
    vectors = ds.dataset(tmp_path / "dense").to_table()["embedding"].to_pylist()
    np.testing.assert_allclose(vectors, VECTORS["dense"][0]["vectors"], atol=1e-5)


def test_a_model_without_a_label_of_entailment_answers_as_transformers_and_says_so(
    models, tmp_path
):
    shutil.copytree(models["zero-shot-classification"], tmp_path / "model")
    file = tmp_path / "model/config.json"
    config = json.loads(file.read_text())
    names = ["no", "maybe", "yes"]
    config |= {"label2id": {n: i for i, n in enumerate(names)}, "id2label": dict(enumerate(names))}
    file.write_text(json.dumps(config))
    wanted = {
        "task": "zero-shot-classification",
        "model": str(tmp_path / "model"),
        "input": [{"text": "the mill is old"}, {"text": "rain and snow"}],
        "output": str(tmp_path / "out"),
        "parameters": {"candidate_labels": ["art", "sport", "bread"]},
        "actors": {"placement": "local"},
    }
    note = "no label of the model (no, maybe, yes) begins with 'entail': its last one is taken for"
    assert any(one.startswith(note) for one in pipemill.plan(wanted).notes)
    report = pipemill.run(wanted)
    assert any(one.startswith(note) for one in report.notes)
    plain = transformers.pipeline("zero-shot-classification", str(tmp_path / "model"))
    for row in report.to_arrow().to_pylist():
        answer = plain(row["text"], candidate_labels=["art", "sport", "bread"])
        assert row["labels"] == answer["labels"]
        np.testing.assert_allclose(row["scores"], answer["scores"], atol=1e-5)
    del config["label2id"]
    file.write_text(json.dumps(config))
    with pytest.raises(AttributeError):
        transformers.pipeline("zero-shot-classification", str(tmp_path / "model"))
    with pytest.raises(ConfigError, match="config.json has id2label and no label2id, where zero"):
        pipemill.run({**wanted, "output": str(tmp_path / "other")})
