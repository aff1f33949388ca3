"""Models as they are loaded: with weights, or without where only tokens and answers are made."""

from __future__ import annotations

import pytest
from pipemill.pipelines.library_settings import ignore_weights_keyword, keep_settings
from pipemill.pipelines.loading.model import Model


@pytest.mark.parametrize("task", ["text-classification", "pair-classification"])
def test_a_user_pipeline_can_be_made_without_weights(models, task):
    model = Model(
        path=models["text-classification"],
        pipeline_class="tests.support.own_pipelines:PairPipeline",
    )
    pipeline = model.load_without_weights(task)
    assert type(pipeline.model).__name__ == "BertForSequenceClassification"
    assert pipeline.model.device.type == "meta"


def test_what_torch_says_of_a_gpu_that_it_does_not_find_is_told(models, monkeypatch):
    import torch

    def init():
        raise RuntimeError("The NVIDIA driver is too old (found version 11040). Please update it.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    model = Model(path=models["text-classification"], num_gpus=1)
    reason = r"no GPU on this worker \(The NVIDIA driver is too old \(found version 11040\)\): with"
    with pytest.raises(RuntimeError, match=reason):
        model.load("text-classification")


def test_no_attention_of_cudnn_builds_a_graph_for_each_shape(models):
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)  # as other tests may not have left it
    with keep_settings():
        Model(path=models["text-classification"]).load("text-classification")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_a_tokenizer_of_mistral_is_not_told_of_weights(monkeypatch):
    """As `transformers.pipeline` does; mistral-common's own takes no keyword that it lacks."""
    import transformers

    class Tokenizer:
        @classmethod
        def from_pretrained(cls, path, *, revision=None):
            return cls, path, revision

    monkeypatch.setattr(transformers.utils, "is_mistral_common_available", lambda: True)
    monkeypatch.setattr(transformers, "MistralCommonBackend", Tokenizer, raising=False)
    load = {"revision": "main", "use_safetensors": True}
    with ignore_weights_keyword():
        assert Tokenizer.from_pretrained("here", **load) == (Tokenizer, "here", "main")
    with pytest.raises(TypeError):
        Tokenizer.from_pretrained("here", **load)
