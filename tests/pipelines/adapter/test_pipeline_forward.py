"""Which chunks share a forward pass, where a first try decides it."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from pipemill.actors.batch import Batch
from pipemill.pipelines.adapter.pipeline_forward import PipelineForward
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support.image_rows import files


def test_a_first_try_without_memory_decides_nothing(monkeypatch):
    """Of fewer chunks the answers may be the same: they are tried when they fit."""
    forward = PipelineForward.__new__(PipelineForward)
    forward.alone, forward.by_token, forward.generation, forward.scheduled = {}, None, None, None
    forward.pipeline = SimpleNamespace(model=None, device=torch.device("cpu"))

    def together(chunks, as_computed=False):
        if len(chunks) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [f"answer to {chunk}" for chunk in chunks]

    monkeypatch.setattr(forward, "_together", together)
    monkeypatch.setattr(
        forward, "run_singly", lambda chunks, as_computed: [f"answer to {c}" for c in chunks]
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(["a", "b", "c"])
    assert forward(["a", "b"]) == ["answer to a", "answer to b"]
    assert forward.alone == {False: False}


@pytest.mark.parametrize("change", ["rounding", "neighbours"])
def test_numbers_of_16_bits_may_be_rounded_otherwise_together(models, change):
    """As on a GPU, whose kernels for several images add up in another order."""
    path, columns = models["image-classification"], (("image", "image"),)
    model = Model(path=path, dtype="bfloat16")
    stages = LoadTask(task="image-classification", model=model, columns=columns)()
    pipeline, forwards = stages.task.pipeline, stages.task.forwards
    usual = pipeline.model.forward

    def rounded(*given, **named):
        output = usual(*given, **named)
        if len(output.logits) > 1 and change == "rounding":
            output.logits = output.logits * (1 + 0.01 * torch.sin(torch.arange(7.0))[None])
        elif change == "neighbours":
            output.logits = output.logits.roll(1, 0)
        return output

    pipeline.model.forward = rounded
    batch = stages.process(Batch(pa.table({"image": list(files(6))})))
    assert not batch.failures
    assert forwards.alone == {False: change == "neighbours"}


def test_what_is_lost_of_several_outputs_is_computed_alone(models):
    """In 16 bits, where what the model returns is compared, and not the answers."""
    model = Model(path=models["image-classification"], dtype="bfloat16")
    columns = (("image", "image"),)
    stages = LoadTask(task="image-classification", model=model, columns=columns)()
    pipeline, forwards = stages.task.pipeline, stages.task.forwards
    forward, postprocess = pipeline._forward, pipeline.postprocess
    forwards.postprocess = None

    def with_count(inputs, **named):
        return {"logits": forward(inputs, **named).logits, "count": 3}

    def of_count(output, **named):
        return postprocess({"logits": output["logits"]}, top_k=output["count"])

    pipeline._forward, pipeline.postprocess = with_count, of_count
    batch = stages.process(Batch(pa.table({"image": list(files(6))})))
    assert not batch.failures
    assert forwards.alone == {False: True}
