"""The score of a cross-encoder is what its folder says, as `CrossEncoder.predict` makes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from pipemill.jobs import prepare
from pipemill.jobs.planning import model_conventions
from pipemill.jobs.prepare import prepare_without_output

import pipemill
from pipemill.errors import ConfigError
from tests.support import tiny

TEXTS, OTHERS = tiny.texts(6, seed=1, longest=7), tiny.texts(6, seed=2, longest=7)
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture
def job(tmp_path):
    """A job of pairs for a model of these labels, with more in its config.json and beside it."""

    def make(config, settings=None, labels=("score",), **parameters):
        folder = tiny.save(tmp_path / "model", "ForSequenceClassification", list(labels), 128)
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        if settings:
            (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        rows = pa.table({"text": TEXTS, "text_pair": OTHERS})
        pq.write_table(rows, tmp_path / "in.parquet")
        return {
            "task": "text-classification",
            "model": str(folder),
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "parameters": parameters,
            "actors": {"placement": "local"},
        }

    return make


def logits(config):
    """By the model itself, pair by pair."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(config["model"])
    words = transformers.AutoTokenizer.from_pretrained(config["model"])
    with torch.no_grad():
        pairs = zip(TEXTS, OTHERS, strict=True)
        return torch.cat([model(**words(*p, return_tensors="pt")).logits for p in pairs])


def scores(report):
    return np.array(ds.dataset(report.output).to_table()["score"].to_pylist())


NAMED = {
    "identity": ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1"}}, None),
    "old": ({"sbert_ce_default_activation_function": IDENTITY}, None),
    "new": ({}, {"model_type": "CrossEncoder", "activation_fn": IDENTITY}),
    "beside the config": (
        {"sentence_transformers": {"activation_fn": SIGMOID}},
        {"model_type": "CrossEncoder", "activation_fn": IDENTITY},
    ),
    "sigmoid of a regression": (
        {"problem_type": "regression", "sentence_transformers": {"activation_fn": SIGMOID}},
        None,
    ),
    "sigmoid": ({"sentence_transformers": {"activation_fn": SIGMOID}}, None),
    "version alone": ({"sentence_transformers": {"version": "4.1"}}, None),
    "tanh": (
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
        None,
    ),
}
EXPECTED = {
    "sigmoid of a regression": torch.sigmoid,
    "sigmoid": torch.sigmoid,
    "version alone": torch.sigmoid,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("case", NAMED)
def test_the_score_is_by_the_activation_that_the_folder_names(job, case):
    config = job(*NAMED[case])
    report = pipemill.run(config)
    function = EXPECTED.get(case, lambda x: x)
    np.testing.assert_allclose(scores(report), function(logits(config))[:, 0], atol=1e-5)
    with open(f"{report.output}/_pipemill/job.json") as file:
        decides = json.load(file)["decides"]
    assert ("function_to_apply" in decides) == (case not in ("sigmoid", "version alone"))
    sampled = pipemill.verify(report.output, sample=3)
    assert not sampled.findings
    assert sampled.sample.transformers == (0 if case == "tanh" else 3)


def test_the_job_wins_over_the_folder(job):
    config = job(*NAMED["identity"], function_to_apply="sigmoid")
    expected = torch.sigmoid(logits(config))[:, 0]
    np.testing.assert_allclose(scores(pipemill.run(config)), expected, atol=1e-5)


def test_several_labels_are_scored_as_transformers_does(job):
    config = job(*NAMED["identity"], labels=("a", "b", "c"))
    expected = torch.softmax(logits(config), dim=1).max(dim=1).values
    np.testing.assert_allclose(scores(pipemill.run(config)), expected, atol=1e-5)


def test_a_function_that_cannot_be_followed_is_refused_by_name(job):
    config = job({"sentence_transformers": {"activation_fn": "my.code.Squash"}})
    with pytest.raises(ConfigError, match=r"my\.code\.Squash.*function_to_apply to sigmoid or n"):
        pipemill.run(config)
    config["parameters"] = {"function_to_apply": "none"}
    np.testing.assert_allclose(scores(pipemill.run(config)), logits(config)[:, 0], atol=1e-5)


def test_scores_by_another_module_are_refused_by_name(job):
    config = job({}, {"model_type": "CrossEncoder"})
    own = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    listed = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules = json.dumps([*listed, {"type": own, "path": "1_LogitScore"}])
    Path(config["model"], "modules.json").write_text(modules)
    with pytest.raises(ConfigError, match="scores are made by the module LogitScore"):
        pipemill.run(config)


def test_an_older_output_of_another_function_is_refused(job, monkeypatch):
    config = job(*NAMED["identity"])
    with monkeypatch.context() as patched:
        for module in (prepare, model_conventions):
            patched.setattr(module, "follow_conventions", lambda job, task, *rest: task)
        pipemill.run(config)
    named = r"function_to_apply \(\"transformers' own\" then, 'none' now\)"
    with pytest.raises(ConfigError, match=named):
        pipemill.run(config)
    assert not pipemill.verify(config["output"], sample=3).findings


def test_a_label_without_a_name_is_refused(job):
    with pytest.raises(ConfigError, match=r"id2label .* has 2 labels, but not number 1"):
        prepare_without_output(
            prepared_job(job({"id2label": {"0": "a", "2": "b"}}, labels=("a", "b")))
        )


def test_labels_that_are_numbers_are_written_as_text(job):
    config = job({"id2label": {"0": 1, "1": 2}}, labels=("a", "b"))
    report = pipemill.run(config)
    found = ds.dataset(report.output).to_table()["label"].to_pylist()
    assert set(found) <= {"1", "2"}
    assert found == [str(1 + best) for best in logits(config).argmax(dim=1).tolist()]


def prepared_job(config):
    from pipemill.jobs.config.load import make_job

    return make_job(config, "test")
