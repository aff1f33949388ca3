"""Layers of a Whisper model, exchanged: the same answers, or the layers as they were."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from pipemill.pipelines.engines.onednn import linears, speech_layers
from pipemill.pipelines.engines.onednn.speech_layers import use_faster_layers


@pytest.fixture(autouse=True)
def any_speed(monkeypatch):
    """Takes every layer that gives the same, however long it takes."""
    monkeypatch.setattr(linears, "_FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(speech_layers, "_WORTH", float("inf"))


def make_whisper(dtype=torch.float32):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 2, "decoder_layers": 2, "max_source_positions": 50}
    tokens = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 2}
    config = transformers.WhisperConfig(
        vocab_size=300, init_std=0.4, **sizes, **heads, **layers, **tokens
    )
    return transformers.WhisperForConditionalGeneration(config).eval().to(dtype)


def list_exchanged(model):
    return [name for name, one in model.named_modules() if "forward" in vars(one)]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_a_model_with_faster_layers_answers_the_same(dtype, close):
    model, ids = make_whisper(dtype), torch.tensor([[2, 7, 9]])
    features = torch.randn(1, 8, 100, dtype=dtype)
    with torch.no_grad():
        usual = model(input_features=features, decoder_input_ids=ids).logits.float()
        use_faster_layers(model)
        faster = model(input_features=features, decoder_input_ids=ids).logits.float()
    exchanged = list_exchanged(model)
    assert "proj_out" in exchanged
    for part in ("encoder", "decoder"):
        for layer in (0, 1):
            assert f"model.{part}.layers.{layer}.fc1" in exchanged
            assert f"model.{part}.layers.{layer}.activation_fn" in exchanged
    assert (usual - faster).norm() < close * usual.norm()


def test_layers_that_answer_otherwise_stay_as_they_were(monkeypatch):
    model = make_whisper()
    monkeypatch.setattr(
        speech_layers, "make_prepacked", lambda layer, gelu=False: lambda one: layer(one) * 1.01
    )
    use_faster_layers(model)
    assert not list_exchanged(model)


def test_a_part_that_is_too_large_to_copy_is_left_alone(monkeypatch):
    model = make_whisper()
    size = sum(weights.nbytes for weights in model.get_encoder().layers.parameters())
    monkeypatch.setattr(speech_layers, "MOST_BYTES", size - 1)
    use_faster_layers(model)
    exchanged = list_exchanged(model)
    assert "proj_out" in exchanged
    assert not any("encoder." in name for name in exchanged)


def test_a_torch_without_the_product_keeps_the_layers(monkeypatch):
    model = make_whisper()
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())  # as on a Mac
    use_faster_layers(model)
    assert not list_exchanged(model)
