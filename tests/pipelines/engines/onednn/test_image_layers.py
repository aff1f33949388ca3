"""Layers of models that see images, exchanged: the same answers, or the layers as they were."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pipemill.pipelines.engines.onednn import image_layers, linears
from pipemill.pipelines.engines.onednn.image_layers import _pass_on, use_faster_layers
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

SHAPE = (3, 32, 32)


@pytest.fixture(autouse=True)
def any_speed(monkeypatch):
    """Takes every layer that gives the same, however long it takes."""
    monkeypatch.setattr(linears, "_pays", lambda layer: True)
    monkeypatch.setattr(linears, "_FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(image_layers, "_MOST_TIME", float("inf"))


def _vary_norms(model):
    """Give layers numbers as if learnt: a batch norm as made changes nothing."""
    for norm in (layer for layer in model.modules() if type(layer) is torch.nn.BatchNorm2d):
        for values in (norm.running_mean, norm.bias.data):
            values.normal_(0, 0.5)
        for values in (norm.running_var, norm.weight.data):
            values.uniform_(0.3, 2)
    for layer in (layer for layer in model.modules() if type(layer) is torch.nn.Conv2d):
        torch.nn.init.kaiming_normal_(layer.weight)
    return model.eval()


def _resnet():
    import transformers as t

    widths = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "num_labels": 5}
    return _vary_norms(t.ResNetForImageClassification(t.ResNetConfig(**widths)))


def _regnet():
    import transformers as t

    widths = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8}
    config = t.RegNetConfig(**widths, layer_type="y", num_labels=5)
    return _vary_norms(t.RegNetForImageClassification(config))


def _vit(act="gelu"):
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_labels": 5}
    config = t.ViTConfig(**sizes, initializer_range=0.3, hidden_act=act)
    return t.ViTForImageClassification(config).eval()


def _convnext():
    import transformers as t

    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "num_labels": 5}
    return t.ConvNextForImageClassification(t.ConvNextConfig(**sizes)).eval()


# The names of the classes that do nothing any more.
@pytest.mark.parametrize(
    ("make", "dtype", "passed_by"),
    [
        (_resnet, torch.float32, {"BatchNorm2d", "ReLU"}),
        (_regnet, torch.float32, {"BatchNorm2d", "ReLU"}),
        (_vit, torch.float32, {"GELUActivation"}),
        (_vit, torch.bfloat16, {"GELUActivation"}),
        (_convnext, torch.float32, {"GELUActivation"}),
        (lambda: _vit("gelu_new"), torch.float32, set()),
        (_resnet, torch.bfloat16, set()),
    ],
)
def test_a_model_with_faster_layers_answers_the_same(make, dtype, passed_by):
    torch.manual_seed(0)
    model = make().to(dtype)
    pixels = torch.randn(5, *SHAPE, dtype=dtype)
    with torch.inference_mode():
        usual = model(pixel_values=pixels).logits
        exchanged = use_faster_layers(model, SHAPE)
        faster = model(pixel_values=pixels).logits
    idle = {type(m).__name__ for m, forward in exchanged.forwards if forward is _pass_on}
    assert idle == passed_by
    assert exchanged.forwards
    close = 1e-4 if dtype == torch.float32 else 5e-2
    assert not torch.allclose(usual[0], usual[1], rtol=2 * close)
    assert torch.allclose(usual, faster, rtol=close, atol=close * usual.abs().max().item())
    exchanged.leave()
    assert not any("forward" in vars(layer) for layer in model.modules())


class _OtherOrder(torch.nn.Module):
    """Calls its layers in another order than they stand in."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)
        self.relu, self.head = torch.nn.ReLU(), torch.nn.Linear(3, 4)

    def forward(self, pixel_values):
        seen = self.conv(self.relu(self.norm(pixel_values)))
        return (self.head(seen.mean((2, 3))),)


def test_layers_that_are_called_in_another_order_stay():
    model = _vary_norms(_OtherOrder())
    exchanged = use_faster_layers(model, SHAPE)
    assert [layer for layer, _ in exchanged.forwards] == [model.head]
    assert [layer for layer in model.children() if "forward" in vars(layer)] == [model.head]


def test_layers_that_take_far_longer_stay(monkeypatch):
    monkeypatch.setattr(image_layers, "_MOST_TIME", 0)
    model = _resnet()
    assert {type(layer) for layer, _ in use_faster_layers(model, SHAPE).forwards} <= {
        torch.nn.Linear
    }
    assert not any("forward" in vars(m) for m in model.modules() if type(m) is torch.nn.Conv2d)


@pytest.mark.parametrize("make", [_resnet, _vit])
def test_a_torch_without_the_products_keeps_the_layers(monkeypatch, make):
    model = make()
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())  # as on a Mac
    assert not use_faster_layers(model, SHAPE).forwards
    assert not any("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize(
    ("task", "exchanges"), [("image-classification", True), ("object-detection", False)]
)
def test_a_task_whose_images_have_one_shape_gets_them(models, task, exchanges):
    load = LoadTask(task=task, model=Model(path=models[task]), columns=(("image", "image"),))
    model = load().task.pipeline.model
    assert any("forward" in vars(layer) for layer in model.modules()) is exchanges
