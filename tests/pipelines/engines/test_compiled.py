"""Models compiled by torch: the same answers, and few shapes to compile for.

The compiler's own code generation is left out: it takes minutes, and needs a C++ compiler.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from pipemill.actors import task
from pipemill.actors.batch import Batch
from pipemill.pipelines.engines.compiled import CompiledModel
from pipemill.pipelines.engines.encoder import make_encoder
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import encoders, tiny
from tests.support.table_answers import assert_same, load

TEXTS = [tiny.sentence(n, n) for n in (1, 3, 9, 14, 15, 20, 30, 33, 39, 40, 41, 2, 5)]


@pytest.fixture
def shapes(monkeypatch):
    """Of input ids, for each time that a shape is compiled."""
    found = []

    def backend(graph, inputs):
        found.append(next(one.shape for one in inputs if getattr(one, "ndim", 0) == 2))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=backend))
    yield found
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("task", "max_tokens"),
    [
        ("text-classification", 1),
        ("text-classification", 100_000),
        ("feature-extraction", 300),
        ("token-classification", 300),
        ("fill-mask", 100_000),
    ],
)
def test_answers_are_the_same_of_few_shapes(models, shapes, task, max_tokens):
    texts = [f"{text} [MASK]" for text in TEXTS] if task == "fill-mask" else TEXTS
    compiled = LoadTask(
        task=task,
        model=Model(path=models[task]),
        columns=(("text", "body"),),
        max_tokens=max_tokens,
        compiles=True,
    )()
    rows = pa.table({"body": texts})
    batch = compiled.process(Batch(rows))
    expected = load(models, task, max_tokens=max_tokens).process(Batch(rows))
    assert_same(batch.results.to_pylist(), expected.results.to_pylist())
    assert not compiled.task.packed
    assert {int(shape[1]) for shape in shapes} <= {64, 128}
    assert 1 <= len(shapes) <= 4, "one for each width, of one row and of any number"


def test_a_model_that_answers_otherwise_with_padding_is_not_padded_to_a_width(shapes):
    pipeline = encoders.loaded("MobileBert")
    words = pipeline.model.get_input_embeddings().weight.data
    words[0] = words[9]  # or its neighbours would hardly show it
    made = encoders.sequences(pipeline, [5, 9, 5])
    loaded = task.Loaded(pipeline=pipeline, parameters={}, compiles=True)
    got, _ = make_encoder(loaded, reads="all")(encoders.chunks(made))
    expected = encoders.one_by_one(pipeline.model, made, whole=False)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert not shapes


@pytest.mark.parametrize(
    ("longest", "width"), [(1, 64), (64, 64), (65, 128), (512, 512), (513, 1024), (3000, 4096)]
)
def test_widths(longest, width):
    model = encoders.loaded("Qwen2", max_position_embeddings=10_000).model
    assert CompiledModel(model).width(longest) == width


def test_no_width_is_more_than_the_model_has_positions_for():
    assert CompiledModel(encoders.loaded("Bert").model).width(70) == encoders.LIMIT


def test_a_task_that_is_not_compiled_says_so(models):
    wanted = LoadTask(
        task="text-generation",
        model=Model(path=models["text-generation"]),
        columns=(("text", "body"),),
        compiles=True,
    )
    with pytest.raises(
        ValueError, match="model.compile is for tasks .* text-generation is not one"
    ):
        wanted()
