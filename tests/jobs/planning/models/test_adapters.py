"""PEFT adapters are merged into their base, and answer as transformers with peft does."""

from __future__ import annotations

import json
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from huggingface_hub.errors import RepositoryNotFoundError
from pipemill.actors.storage.remote_folder import find_cache_folder

import pipemill
from tests.support import hub_errors, tiny

TEXTS = tiny.texts(8, seed=9, longest=20)


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    return {
        "task": "text-classification",
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
    }


def load_base(models):
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        models["feature-extraction"], num_labels=3
    )


def train(models, folder, seed=0, **more):
    """Save an adapter with random weights, of a base that has no classifier."""
    import peft

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], **more)
    model = peft.get_peft_model(load_base(models), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name or "classifier" in name:
                weight.normal_()
    model.save_pretrained(folder)
    return str(folder)


def plain_answers(models, adapter):
    import peft

    model = peft.PeftModel.from_pretrained(load_base(models), adapter).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["feature-extraction"])
    return transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu"
    )(TEXTS)


@pytest.mark.extras("peft")
def test_answers_are_those_of_transformers_with_peft(models, job, tmp_path, capfd):
    base = models["feature-extraction"]
    adapter = train(models, tmp_path / "adapter", task_type="SEQ_CLS")
    plain = plain_answers(models, adapter)
    report = pipemill.run(**job, model={"path": base, "adapter": adapter})
    found = report.to_arrow().to_pydict()
    assert found["label"] == [answer["label"] for answer in plain]
    assert found["score"] == pytest.approx([answer["score"] for answer in plain], abs=1e-5)
    assert len(set(found["label"])) > 1
    # Alone it names its base, and is the same model, which is merged once.
    assert capfd.readouterr().err.count("merging the adapter") == 1
    assert pipemill.run(**job, model=adapter).added["rows"] == 0
    assert "merging" not in capfd.readouterr().err
    assert len(list(find_cache_folder().glob("merged-*/config.json"))) == 1
    assert pipemill.verify(tmp_path / "out", sample=2).ok
    for model in (f"file://{adapter}", {"path": f"file://{base}", "adapter": f"file://{adapter}"}):
        assert pipemill.run(**job, model=model).added["rows"] == 0

    other = train(models, tmp_path / "other", seed=1, task_type="SEQ_CLS")
    with pytest.raises(pipemill.ConfigError, match="holds the results of another job: model"):
        pipemill.run(**job, model={"path": base, "adapter": other})


@pytest.mark.extras("peft")
def test_a_loaded_model_with_an_adapter_is_merged_first(models, job, tmp_path):
    import peft

    base = models["text-classification"]
    config = peft.LoraConfig(target_modules=["query"], init_lora_weights=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    model = peft.get_peft_model(model, config)
    with pytest.raises(pipemill.ConfigError, match="is a PeftModel: merge its adapter"):
        pipemill.preview(**job, model={"model": model, "tokenizer": tokenizer})
    merged = {"model": model.merge_and_unload(), "tokenizer": tokenizer}
    plain = transformers.pipeline("text-classification", **merged, device="cpu")(TEXTS)
    found = pipemill.run(**job, model=merged).to_arrow().to_pydict()
    assert found["score"] == pytest.approx([answer["score"] for answer in plain], abs=1e-5)


@pytest.mark.extras("peft")
def test_a_head_that_neither_has_is_missed(models, job, tmp_path):
    adapter = train(models, tmp_path / "adapter")  # without the classifier
    with pytest.raises(pipemill.ConfigError, match="lacks weights of BertForSeq.*: classifier"):
        pipemill.preview(**job, model={"path": models["feature-extraction"], "adapter": adapter})


@pytest.fixture
def refused(job):
    """Return what a job with a model is refused for."""

    def refuse(model):
        with pytest.raises(pipemill.ConfigError) as caught:
            pipemill.preview(**job, model=model)
        return str(caught.value)

    return refuse


@pytest.fixture
def broken(tmp_path):
    """An adapter of a base that is nowhere, without weights."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": "/no/base", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_of_an_adapter_on_the_hub_it_is_said_why_there_is_none(models, refused, monkeypatch):
    model = {"path": models["text-classification"], "adapter": "org/none"}
    missing = r"no adapter 'org/none' \(model.adapter\): there is no such folder in .*, and "
    assert re.match(f"{missing}HF_HUB_OFFLINE is set$", refused(model))
    hub_errors.answer(monkeypatch, 404, RepositoryNotFoundError)
    assert re.match(f"{missing}the Hub has no model of that name", refused(model))


def test_what_is_wrong_with_an_adapter_is_named(models, broken, refused, monkeypatch):
    base = models["text-classification"]
    assert "no adapter at /no/adapter" in refused({"path": base, "adapter": "/no/adapter"})
    assert f"{base} (model.adapter) is not a PEFT adapter" in refused(
        {"path": base, "adapter": base}
    )
    assert "has no adapter_model.safetensors" in refused({"path": base, "adapter": str(broken)})
    (broken / "adapter_model.safetensors").write_bytes(b"?")
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "needs peft: on every machine of the cluster, pip install 'pipemill[peft]'" in refused(
        {"path": base, "adapter": str(broken)}
    )
    message = refused(str(broken))
    assert f"{broken} is not a model: it is a PEFT adapter of /no/base" in message
    assert "pip install 'pipemill[peft]'" in message


@pytest.mark.extras("peft")
def test_what_can_not_be_merged_is_named(models, broken, refused):
    base = models["text-classification"]
    (broken / "adapter_model.safetensors").write_bytes(b"?")
    assert "is a PEFT adapter, and its base can't be used: no model at /no/base" in refused(
        str(broken)
    )
    assert f"can't merge the adapter {broken} into its base {base}: " in refused(
        {"path": base, "adapter": str(broken)}
    )
