"""Rows through vLLM's interface: a stand-in of the same signatures computes with transformers."""

from __future__ import annotations

import io
import json
import shutil
from importlib.util import find_spec

import huggingface_hub
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from pipemill.actors.faults.blame import find_blame
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.generation.vllm_generation import EngineDied, VllmGeneration
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import made_media, tiny, vllm_stand_in
from tests.support.restored_cases import REFERENCES

PROMPTS = [*tiny.texts(9, seed=2, longest=20), "Anna", "red red red red"]
MOST = [3 + n % 5 for n in range(len(PROMPTS))]


@pytest.fixture
def engines(monkeypatch):
    with vllm_stand_in.install(monkeypatch) as made:
        yield made


@pytest.fixture
def job(models, tmp_path):
    def build(texts=PROMPTS, task="text-generation", most=MOST, **parameters):
        table = {"text": texts} | ({"max_new_tokens": most} if most else {})
        pq.write_table(pa.table(table), tmp_path / "in.parquet")
        return {
            "task": task,
            "model": {"path": models[task], "engine": "vllm"},
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "parameters": parameters,
            "actors": {"placement": "local"},
        }

    return build


@pytest.mark.parametrize(
    ("num_gpus", "divided"), [(0.5, (1, None)), (1, (1, None)), (4, (4, "mp"))]
)
def test_a_model_is_divided_among_the_gpus_of_its_worker(engines, job, num_gpus, divided):
    given = job(PROMPTS[:2], most=MOST[:2])
    given["actors"]["num_gpus"] = num_gpus
    assert pipemill.run(given).done == 2
    args = engines[0].args
    assert (args.tensor_parallel_size, args.distributed_executor_backend) == divided


def test_many_rows_are_in_flight_and_each_has_its_answer(models, engines, job, tmp_path):
    truth = transformers.pipeline("text-generation", model=models["text-generation"])
    expected = [
        truth(text, do_sample=False, max_new_tokens=most)[0]["generated_text"]
        for text, most in zip(PROMPTS, MOST, strict=True)
    ]
    assert pipemill.run(**job(do_sample=False)).done == len(PROMPTS)
    assert ds.dataset(tmp_path / "out").to_table()["generated_text"].to_pylist() == expected
    (engine,) = engines
    assert engine.most > 3
    assert engine.args.dtype == "float32"
    assert {params.temperature for params in engine.seen} == {0.0}


@pytest.mark.parametrize(
    "task",
    [
        "image-text-to-text",
        pytest.param(
            "any-to-any",
            marks=pytest.mark.skipif(not find_spec("torchvision"), reason="without torchvision"),
        ),
    ],
)
def test_images_are_left_to_it(task, engines, job, models, tmp_path):
    """Only their marks are among the tokens that it is given."""
    model = models["image-text-to-text"]
    images = [made_media.png(made_media.picture(20 + n, 40, n)) for n in range(4)]
    texts = ["red blue", "the mill of a river", "Anna", "bread"]
    settings = {"generate_kwargs": {"max_new_tokens": 6, "do_sample": False}}
    wanted = {**job(most=None), "task": task, "parameters": settings}
    wanted["input"] = pa.table({"image": [*images, None], "text": [*texts, "Berlin"]})
    wanted["model"]["path"] = model
    assert pipemill.run(**wanted).done == 5
    truth = transformers.pipeline(task, model=model)
    answers = ds.dataset(tmp_path / "out").to_table()["generated_text"].to_pylist()
    for image, text, answer in zip(images, texts, answers, strict=False):
        shown = {"type": "image", "image": Image.open(io.BytesIO(image))}
        chat = [{"role": "user", "content": [shown, {"type": "text", "text": text}]}]
        (expected,) = truth(text=chat, **settings)
        assert answer == expected["generated_text"][-1]["content"]
    (expected,) = truth(text="Berlin", **settings)
    assert answers[-1] == expected["generated_text"]


def test_chats_get_their_reply(engines, job, models, tmp_path):
    chats = [[{"role": "user", "content": text}] for text in PROMPTS[:5]]
    wanted = job(most=None, do_sample=False, max_new_tokens=6)
    wanted |= {"task": "conversational", "input": pa.table({"messages": chats})}
    assert pipemill.run(**wanted).done == 5
    truth = transformers.pipeline("text-generation", model=models["text-generation"])
    expected = [truth(chat, do_sample=False, max_new_tokens=6) for chat in chats]
    replies = ds.dataset(tmp_path / "out").to_table()["generated_text"].to_pylist()
    assert replies == [one[0]["generated_text"][-1]["content"] for one in expected]


def test_settings_have_the_names_that_vllm_gives_them(engines, job):
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    given = {"do_sample": True, "top_k": 7, "temperature": 0.5, "min_new_tokens": 2}
    pipemill.run(**job(**given, json_schema=schema, max_new_tokens=4, stop_strings="x", most=None))
    seen = engines[0].seen
    for params in seen:
        assert (params.top_k, params.temperature, params.min_tokens) == (7, 0.5, 2)
        assert (params.max_tokens, params.stop, params.stop_token_ids) == (4, "x", [2])
        assert params.structured_outputs.json == schema
    assert len({params.seed for params in seen}) == len(PROMPTS)


def test_a_text_is_sampled_from_the_tokens_that_generate_takes(engines, job):
    pipemill.run(**job(most=None, max_new_tokens=3, do_sample=True))
    assert {params.top_k for params in engines[0].seen} == {50}


def test_a_setting_of_the_model_is_not_passed_over(engines, job, models, tmp_path):
    folder = shutil.copytree(models["text-generation"], tmp_path / "beams")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_beams": 3}))
    wanted = job(most=None, do_sample=False)
    wanted["model"]["path"] = str(folder)
    with pytest.raises(pipemill.ModelError, match=r"knows no num_beams \(3\).*generation_config"):
        pipemill.run(**wanted)
    assert pipemill.run(**{**wanted, "parameters": {"do_sample": False, "num_beams": 1}}).dead == 0


def test_a_row_fails_alone(engines, job):
    report = pipemill.run(**job([*PROMPTS[:3], "red " * 600], most=None, max_new_tokens=4))
    assert (report.done, report.dead) == (3, 1)
    (reason,) = report.dead_reasons
    assert "too many for the model" in str(reason)


def test_an_empty_text_begins_with_the_token_that_begins_texts(models, engines, job, tmp_path):
    truth = transformers.pipeline("text-generation", model=models["text-generation"])
    report = pipemill.run(**job(["Anna", ""], most=None, max_new_tokens=4, do_sample=False))
    assert report.dead_reasons == []
    answers = ds.dataset(tmp_path / "out").to_table()["generated_text"].to_pylist()
    assert answers[1] == truth("", max_new_tokens=4, do_sample=False)[0]["generated_text"]


@pytest.fixture
def write(engines, models):
    """Write after one prompt of these tokens."""
    pipeline = transformers.pipeline("text-generation", model=models["text-generation"])
    engine = VllmGeneration(pipeline, "generated_sequence")

    def run(*ids, mask=None, **keywords):
        inputs = {"input_ids": torch.tensor([ids])}
        if mask is not None:
            inputs["attention_mask"] = torch.tensor([mask])
        keywords = {"max_new_tokens": 4, "do_sample": False} | keywords
        return engine.write_all([Prompt(inputs=inputs, keywords=keywords, settings="", seed=1)])[0]

    return run


def test_an_engine_that_dies_blames_no_row(write):
    for ids in ((vllm_stand_in.DEADLY, 5), (6, 5)):  # the second would be waited for forever
        with pytest.raises(EngineDied, match="vLLM ended: EngineCore") as raised:
            write(*ids)
        assert find_blame(raised.value) == "process"


def test_a_text_that_the_engine_loses_is_not_waited_for(write, monkeypatch):
    def lose(engine):
        engine.requests.clear()
        return []

    monkeypatch.setattr(vllm_stand_in.LLMEngine, "step", lose)
    with pytest.raises(EngineDied, match="vLLM ended: it returned no text for a prompt"):
        write(6, 5)


def test_padding_is_not_read(write):
    whole = write(5, 6)["generated_sequence"].tolist()[0][0]
    padded = write(1, 1, 5, 6, mask=[0, 0, 1, 1])["generated_sequence"].tolist()[0][0]
    assert padded == [1, 1, *whole]


def test_what_vllm_does_not_take_is_an_error_of_the_row(write):
    assert "temperature must be above 0" in str(write(5, do_sample=True, temperature=0.0))
    assert "float" in str(write(5, do_sample=True, temperature=[1]))
    assert "gave this text up" in str(write(5, json_schema={"$ref": "#"}))
    assert write(5, eos_token_id=-1)["generated_sequence"].shape == (1, 1, 5)


def test_what_it_can_not_do_is_one_message(engines, job, models):
    t5 = {"path": str(REFERENCES / "models/t5"), "engine": "vllm"}
    wanted = {**job(most=None), "task": "summarization", "model": t5}
    with pytest.raises(pipemill.ConfigError, match="runs decoders, and .* has an encoder"):
        pipemill.run(**wanted)
    with pytest.raises(pipemill.ModelError, match="the engine vllm .* knows no penalty_alpha"):
        pipemill.run(**job(most=None, do_sample=False, penalty_alpha=0.6, top_k=4))
    wanted = job(json_schema={"type": "object"})
    wanted["model"]["engine"] = "auto"
    wanted["output"] += "-2"
    with pytest.raises(pipemill.ConfigError, match="json_schema needs model.engine: vllm"):
        pipemill.run(**wanted)


@pytest.mark.parametrize("task", ["text-classification", "image-to-text", "object-detection"])
def test_a_task_that_it_does_not_run_is_refused_before_its_extra_is_named(task, job):
    with pytest.raises(pipemill.ConfigError, match=f"engine vllm does not run {task}: leave it"):
        pipemill.run(**{**job(), "task": task})


def test_it_names_its_extra(job):
    with pytest.raises(pipemill.ConfigError, match=r"pip install 'pipemill\[vllm\]'"):
        pipemill.run(**job())


def test_it_loads_the_commit_of_the_job(engines, models, monkeypatch):
    """By the name on the Hub alone, vLLM would take the newest one."""
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, "*.jinja" in allow_patterns, "*.bin" in allow_patterns))
        return models["text-generation"]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = Model(path="org/writer", revision="0123abcd")
    load = LoadTask(task="text-generation", model=model, columns=(("text", "text"),), engine="vllm")
    load()
    (engine,) = engines
    assert engine.args.model == engine.args.tokenizer == models["text-generation"]
    assert asked == [("org/writer", "0123abcd", True, False)]
