"""Linear layers with reordered weights: the same answers, or the layer as it was."""

from __future__ import annotations

import pytest
import torch
from pipemill.pipelines.engines.onednn import linears
from pipemill.pipelines.engines.onednn.linears import prepack_linears


class Doubled(torch.nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def model(dtype=torch.float32):
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(256, 384),
        torch.nn.GELU(),
        torch.nn.Linear(384, 256, bias=False),
        Doubled(256, 256),
        torch.nn.Linear(256, 3),
    ]
    return torch.nn.Sequential(*layers).to(dtype)


@pytest.fixture
def takes(monkeypatch):
    """Sets the seconds that the usual product and the prepacked one seem to take."""

    def set_(usual, packed):
        times = iter([0.0, usual, usual, usual + packed] * 10**3)
        monkeypatch.setattr(linears.time, "perf_counter", lambda: next(times))

    return set_


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_large_layers_are_prepacked_and_answer_the_same(takes, dtype, close):
    takes(2.0, 1.0)
    usual, fast = model(dtype), model(dtype)
    packed = prepack_linears(fast)
    assert len(packed.forwards) == 2, "neither the subclass nor the small one"
    assert not any("forward" in vars(layer) for layer in fast)
    packed.use()
    assert [("forward" in vars(layer)) for layer in fast] == [True, False, True, False, False]
    with torch.inference_mode():
        for shape in ((1, 700, 256), (1, 256), (3, 5, 256), (256,), (0, 256)):
            inputs = torch.randn(shape, dtype=dtype)
            expected, got = usual(inputs), fast(inputs)
            assert got.shape == expected.shape
            assert torch.allclose(got.float(), expected.float(), close, close)
    packed.leave()
    assert not any("forward" in vars(layer) for layer in fast)


def test_a_product_that_differs_is_not_used(takes, monkeypatch):
    takes(2.0, 1.0)
    made = linears.make_prepacked

    def odd(layer, gelu=False):
        product = made(layer, gelu)
        return lambda inputs: product(inputs) * 1.001

    monkeypatch.setattr(linears, "make_prepacked", odd)
    assert prepack_linears(model()).forwards == []


def test_one_that_is_not_faster_is_not_used(takes):
    takes(1.0, 1.0)
    assert prepack_linears(model()).forwards == []


def test_a_large_model_is_not_held_twice(takes, monkeypatch):
    takes(2.0, 1.0)
    monkeypatch.setattr(linears, "MOST_BYTES", 2**19)
    assert prepack_linears(model()).forwards == []


def test_another_type_of_input_is_refused_as_ever(takes):
    takes(2.0, 1.0)
    fast = model()
    prepack_linears(fast).use()
    with pytest.raises(RuntimeError, match="dtype"):
        fast[0](torch.randn(2, 256, dtype=torch.float64))


def test_the_head_over_a_vocabulary_is_neither_tried_nor_prepacked(takes, monkeypatch):
    """On so many tokens as are tried its outputs alone would be gigabytes."""
    takes(2.0, 1.0)
    monkeypatch.setattr(linears, "_WIDEST", 300)
    fast = model()
    assert [layer.out_features for layer, _ in prepack_linears(fast).forwards] == [256]
