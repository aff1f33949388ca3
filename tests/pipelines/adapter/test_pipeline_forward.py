"""Which chunks share a forward pass, where a first try decides it."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from pipemill.actors.batch import Batch
from pipemill.actors.task import NotScheduled
from pipemill.pipelines.adapter.first_try import FirstTry
from pipemill.pipelines.adapter.pickled_chunks import DeferredError
from pipemill.pipelines.adapter.pipeline_forward import PipelineForward
from pipemill.pipelines.adapter.scheduled_forward import ScheduledForward
from pipemill.pipelines.engines.base import GenerationEngine
from pipemill.pipelines.engines.stacking import ROUNDED_ON_GPU
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from transformers import AutoConfig

from tests.support.image_rows import files


def test_a_first_try_without_memory_decides_nothing(monkeypatch):
    """Of fewer chunks the answers may be the same: they are tried when they fit."""
    forward = PipelineForward.__new__(PipelineForward)
    forward.alone, forward.by_token, forward.generation = {}, None, None
    forward.scheduled = forward.recordings = None
    forward.first_try = FirstTry(forward)
    forward.pipeline = SimpleNamespace(model=None, device=torch.device("cpu"))

    def together(chunks, as_computed=False):
        if len(chunks) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [f"answer to {chunk}" for chunk in chunks]

    monkeypatch.setattr(forward, "run_together", together)
    monkeypatch.setattr(
        forward, "run_singly", lambda chunks, *_: [f"answer to {chunk}" for chunk in chunks]
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(["a", "b", "c"])
    for decided in ({}, {False: False}):
        assert forward(["a", "b"]) == ["answer to a", "answer to b"]
        assert forward.alone == decided


class Engine(GenerationEngine):
    """An engine that has memory for two texts: with more it raises, or a text is the error."""

    is_exact = False

    def __init__(self, raises):
        self.raises = raises

    def schedules(self, keywords):
        return True

    def write_all(self, prompts, most=None):
        answers = [f"answer to {prompt}" for prompt in prompts]
        if len(prompts) <= 2:
            return answers
        error = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if self.raises:
            raise error
        return [error, *answers[1:]]


@pytest.mark.parametrize("raises", [True, False])
def test_a_first_try_of_scheduled_texts_without_memory_decides_nothing(monkeypatch, raises):
    alone = []

    def run_singly(chunks):
        alone.extend(chunks)
        return [f"answer to {chunk}" for chunk in chunks]

    forward = SimpleNamespace(
        run_singly=run_singly, is_empty=lambda inputs: False, rounds=lambda: False
    )
    scheduled = ScheduledForward(forward, Engine(raises))

    class Text(str):
        inputs, keywords = {"input_ids": None}, {}

    monkeypatch.setattr(scheduled, "_make_prompt", Text)
    monkeypatch.setattr(
        scheduled,
        "_reduce",
        lambda prompt, one: DeferredError.of(one) if isinstance(one, Exception) else one,
    )
    with pytest.raises((RuntimeError, MemoryError), match="out of memory"):
        scheduled(["a", "b", "c"])
    assert scheduled(["a", "b"]) == ["answer to a", "answer to b"]
    alone.clear()
    assert scheduled(["c", "d"]) == ["answer to c", "answer to d"]
    assert not alone


def test_two_chunks_that_are_the_same_together_decide_nothing(models):
    """They may be by chance, as texts of two words that a model without a mask writes."""
    columns = (("image", "image"),)
    load = LoadTask(
        task="image-classification",
        model=Model(path=models["image-classification"]),
        columns=columns,
        max_tokens=10**6,
    )
    rows = [pa.table({"image": [*files(4)][first : first + 2]}) for first in (0, 2, 0)]
    expected = [load().process(Batch(two)).results.to_pylist() for two in rows]
    stages = load()
    pipeline, usual, calls = stages.task.pipeline, stages.task.pipeline.model.forward, []

    def changed(*given, **named):
        output = usual(*given, **named)
        if len(output.logits) > 1:
            calls.append(len(output.logits))
            output.logits = output.logits if len(calls) == 1 else output.logits.roll(1, 0)
        return output

    pipeline.model.forward = changed
    for two, answers in zip(rows, expected, strict=True):
        assert stages.process(Batch(two)).results.to_pylist() == answers
    assert calls == [2, 2]


def change_logits(logits, change):
    """Return what a model that answers to several images in another way answers."""
    several = len(logits) > 1
    if change == "rounding" and several:
        return logits * (1 + 0.01 * torch.sin(torch.arange(7.0))[None])
    if change == "much rounding" and several:
        return logits.roll(1, 1) * (1 + 0.2 * torch.sin(torch.arange(7.0))[None])
    if change == "swapped":
        return logits.roll(1, 0)
    if change == "mean":
        return logits - 0.2 * logits.mean(0)
    return logits * len(logits) if change == "count" else logits


@pytest.mark.parametrize("change", ["rounding", "much rounding", "swapped", "mean", "count"])
def test_numbers_of_16_bits_may_be_rounded_otherwise_together(models, change):
    """As on a GPU, whose kernels for several images add up in another order."""
    path, columns = models["image-classification"], (("image", "image"),)
    model = Model(path=path, dtype="bfloat16")
    stages = LoadTask(task="image-classification", model=model, columns=columns)()
    pipeline, forwards = stages.task.pipeline, stages.task.forwards
    usual = pipeline.model.forward

    def changed(*given, **named):
        output = usual(*given, **named)
        output.logits = change_logits(output.logits, change)
        return output

    pipeline.model.forward = changed
    batch = stages.process(Batch(pa.table({"image": list(files(6))})))
    assert not batch.failures
    assert forwards.alone == {False: "rounding" not in change}


def test_what_is_lost_of_several_outputs_is_computed_alone(models):
    """In 16 bits, where what the model returns is compared, and not the answers."""
    model = Model(path=models["image-classification"], dtype="bfloat16")
    columns = (("image", "image"),)
    stages = LoadTask(task="image-classification", model=model, columns=columns)()
    pipeline, forwards = stages.task.pipeline, stages.task.forwards
    forward, postprocess = pipeline._forward, pipeline.postprocess
    forwards.own_postprocess = None

    def with_count(inputs, **named):
        return {"logits": forward(inputs, **named).logits, "count": 3}

    def of_count(output, **named):
        return postprocess({"logits": output["logits"]}, top_k=output["count"])

    pipeline._forward, pipeline.postprocess = with_count, of_count
    batch = stages.process(Batch(pa.table({"image": list(files(6))})))
    assert not batch.failures
    assert forwards.alone == {False: True}


@pytest.mark.parametrize("mixes", [False, True])
def test_in_16_bits_captions_are_compared_with_those_among_their_copies(mixes):
    """Rounding depends on a batch's shape, so that those of one image alone tell nothing."""
    columns, model = (("image", "image"),), "tests/references/models/blip_caption"
    load = LoadTask(
        task="image-to-text",
        model=Model(path=model, dtype="bfloat16"),
        columns=columns,
        parameters=json.dumps({"max_new_tokens": 6}),
        max_tokens=10**6,
    )
    stages = load()
    vision, usual = stages.task.pipeline.model.vision_model, []
    forward = vision.forward

    def mixed(*given, **named):
        output = forward(*given, **named)
        usual.append(len(output[0]))
        output.last_hidden_state = output.last_hidden_state.roll(1, 0)
        return output

    if mixes:
        vision.forward = mixed
    rows = Batch(pa.table({"image": files(8)}))
    expected = load().process(Batch(rows.rows)).results.to_pylist()
    got = stages.process(rows).results.to_pylist()
    assert stages.task.forwards.alone[False] is mixes
    assert not mixes or max(usual) > 1
    assert got == expected


def test_a_pipeline_of_the_users_reads_what_it_returned():
    """Whatever it is called: of transformers' pipelines none reads the scores of `generate`."""
    model = Model(
        path="tests/references/models/llama",
        pipeline_class="tests.support.own_pipelines:Scored",
    )
    load = LoadTask(
        task="text-generation",
        model=model,
        columns=(("text", "text"),),
        parameters=json.dumps({"max_new_tokens": 3}),
        max_tokens=10**6,
    )
    batch = load().process(Batch(pa.table({"text": ["one", "two three", "four five six"]})))
    assert not batch.failures
    assert all(one["generated_text"] for one in batch.results.to_pylist())


def test_rows_of_several_settings_that_no_engine_takes_any_more_are_given_back():
    """Another thread may find out, just after they were handed over, that texts differ together."""
    load = LoadTask(
        task="text-generation",
        model=Model(path="tests/references/models/llama"),
        columns=(("text", "text"), ("max_new_tokens", "most")),
        parameters=json.dumps({"do_sample": False}),
        max_tokens=10**6,
    )
    rows = pa.table({"text": ["one", "two"] * 3, "most": [2, 5] * 3})
    expected = load().process(Batch(rows)).results.to_pylist()
    stages = load()
    adapter = stages.task
    chunks = adapter.expand(rows.rename_columns(["text", "max_new_tokens"])).flatten()
    adapter.forwards.scheduled._differs = True
    with pytest.raises(NotScheduled):
        adapter.forward(chunks)
    assert stages.process(Batch(rows)).results.to_pylist() == expected


@pytest.mark.parametrize("task", ["document-question-answering", "fill-mask"])
def test_on_a_gpu_only_what_is_read_is_compared(models, tmp_path, monkeypatch, task):
    """Keys, values, attention and hidden states are not, nor logits where there is no mask."""
    monkeypatch.setattr(FirstTry, "_choose_closeness", lambda self: ROUNDED_ON_GPU)
    if task == "fill-mask":
        texts = ["a [MASK] b", "[MASK]", "c [MASK]", "d [MASK]"]
        model, columns = str(tmp_path / "model"), {"text": texts, "top_k": [1, 2, 3, 4]}
        shutil.copytree(models[task], model)
        config = AutoConfig.from_pretrained(model, output_hidden_states=True)
        config.save_pretrained(model)
    else:
        columns = {"image": list(files(4)), "question": ["who"] * 4}
        model = models[f"{task}-donut"]
    stages = LoadTask(
        task=task,
        model=Model(path=model),
        columns=tuple((name, name) for name in columns),
        max_tokens=10**6,
    )()
    batch = stages.process(Batch(pa.table(columns)))
    assert not batch.failures
    assert stages.task.forwards.alone[False] is False
