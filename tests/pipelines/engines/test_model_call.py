"""What a model puts out for a token, also if its code and configuration are a user's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pipemill.pipelines.engines.model_call import find_output_shape
from transformers import PretrainedConfig


class OwnModel(torch.nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.config = PretrainedConfig(d_model=6, **config)
        self.embed = torch.nn.Embedding(9, 6)

    def forward(self, input_ids):
        return (self.embed(input_ids),)


class NeedsMore(OwnModel):
    def forward(self, input_ids, boxes):
        return (self.embed(input_ids),)


def pipeline_of(model):
    return SimpleNamespace(model=model, device=torch.device("cpu"))


def test_a_width_that_the_configuration_calls_otherwise_is_seen():
    assert find_output_shape(pipeline_of(OwnModel())) == (1, 1, 6)


def test_a_model_that_needs_more_than_a_token_has_the_width_of_its_configuration():
    assert find_output_shape(pipeline_of(NeedsMore(hidden_size=6))) == (1, 1, 6)
    with pytest.raises(TypeError, match="boxes"):
        find_output_shape(pipeline_of(NeedsMore()))
