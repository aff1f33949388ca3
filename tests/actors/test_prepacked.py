"""Linear layers with reordered weights: the same answers, or the layer as it was."""

from __future__ import annotations

import pytest
import torch
from pipemill.actors import prepacked
from pipemill.actors.prepacked import prepack


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
def pays(monkeypatch):
    """Whatever this machine is faster at."""
    times = iter([0.0, 2.0, 2.0, 3.0] * 10**3)
    monkeypatch.setattr(prepacked.time, "perf_counter", lambda: next(times))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_large_layers_are_prepacked_and_answer_the_same(pays, dtype, close):
    usual, fast = model(dtype), model(dtype)
    assert prepack(fast) == 2, "neither the subclass nor the small one"
    assert [("forward" in vars(layer)) for layer in fast] == [True, False, True, False, False]
    with torch.inference_mode():
        for shape in ((1, 700, 256), (1, 256), (3, 5, 256), (256,), (0, 256)):
            inputs = torch.randn(shape, dtype=dtype)
            expected, got = usual(inputs), fast(inputs)
            assert got.shape == expected.shape
            assert torch.allclose(got.float(), expected.float(), close, close)


def test_it_is_done_once(pays):
    fast = model()
    assert prepack(fast) == 2
    assert prepack(fast) == 0


def test_a_product_that_differs_is_not_used(pays, monkeypatch):
    made = prepacked._prepacked

    def odd(layer):
        product = made(layer)
        return lambda inputs: product(inputs) * 1.001

    monkeypatch.setattr(prepacked, "_prepacked", odd)
    assert prepack(model()) == 0


def test_one_that_is_slower_is_not_used(monkeypatch):
    times = iter([0.0, 1.0, 1.0, 3.0] * 10**3)
    monkeypatch.setattr(prepacked.time, "perf_counter", lambda: next(times))
    assert prepack(model()) == 0


def test_a_large_model_is_not_held_twice(pays, monkeypatch):
    monkeypatch.setattr(prepacked, "_MOST_BYTES", 2**19)
    assert prepack(model()) == 0


def test_another_type_of_input_is_refused_as_ever(pays):
    fast = model()
    prepack(fast)
    with pytest.raises(RuntimeError, match="dtype"):
        fast[0](torch.randn(2, 256, dtype=torch.float64))
