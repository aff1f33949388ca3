"""Spectra that are made on a device; here the CPU is the device."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from pipemill.pipelines.adapter.on_device.side_stream import SideStream, is_faster, rounds_on_gpu
from pipemill.pipelines.adapter.on_device.spectra import (
    DeviceExtractor,
    choose_extractor,
    extract_on_device,
)
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor


class _Pipeline:
    """What is read of a pipeline."""

    def __init__(self, extractor, device="cpu", dtype=torch.float32):
        self.feature_extractor = extractor
        self.device, self.dtype = torch.device(device), dtype


@pytest.fixture
def recording():
    return np.random.default_rng(3).normal(scale=0.2, size=40_000).astype(np.float32)


def test_spectra_are_those_of_the_extractor(recording):
    pipeline = _Pipeline(WhisperFeatureExtractor(feature_size=16))
    found = extract_on_device(pipeline, "cpu")
    assert isinstance(found.feature_extractor, DeviceExtractor)
    assert pipeline.feature_extractor is not found.feature_extractor
    assert found.feature_extractor.sampling_rate == 16_000
    keywords = {"sampling_rate": 16_000, "return_tensors": "pt", "return_attention_mask": True}
    one = pipeline.feature_extractor(recording, **keywords)
    other = found.feature_extractor(recording, **keywords)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_extractor_without_devices_is_left(recording):
    assert extract_on_device(_Pipeline(Wav2Vec2FeatureExtractor()), "cpu") is None
    assert extract_on_device(_Pipeline(None), "cpu") is None


def test_one_whose_spectra_differ_there_is_left():
    class Other(WhisperFeatureExtractor):
        asked = 0

        def __call__(self, *recordings, device="cpu", **keywords):
            self.asked += 1
            found = super().__call__(*recordings, device=device, **keywords)
            found["input_features"] = found["input_features"] + 0.01 * self.asked
            return found

    assert extract_on_device(_Pipeline(Other(feature_size=16)), "cpu") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_not_chosen():
    assert extract_on_device(_Pipeline(WhisperFeatureExtractor(feature_size=16)), "cuda:0") is None


def test_a_device_that_fails_leaves_it_to_the_cpu(recording):
    asked = []

    def extract(recording, device="cpu", **keywords):
        asked.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if not len(recording):
            raise RuntimeError("the recording is empty")
        return "spectrum"

    stream = SideStream("cpu")
    stream.device = "cuda:0"
    extractor = DeviceExtractor(extract, stream)
    assert extractor(recording, sampling_rate=16_000) == "spectrum"
    assert asked == ["cuda:0", "cpu"]
    with pytest.raises(RuntimeError, match="is empty"):
        extractor(recording[:0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_s_spectra_and_those_of_32_bits_are_as_they_were(dtype):
    pipeline = _Pipeline(WhisperFeatureExtractor(feature_size=16), dtype=dtype)
    assert choose_extractor(pipeline) is pipeline
    on_gpu = _Pipeline(pipeline.feature_extractor, "cuda:0", dtype)
    assert rounds_on_gpu(on_gpu) == (dtype == torch.bfloat16)


def test_the_faster_of_two_is_told():
    slow, fast = (lambda: sum(range(300_000))), (lambda: None)
    assert is_faster(fast, slow)
    assert not is_faster(slow, fast)


def test_what_is_faster_alone_may_be_slower_in_several_threads():
    device = threading.Lock()

    def on_device():
        with device:
            time.sleep(0.01)

    def on_cpu():
        time.sleep(0.02)

    assert is_faster(on_device, on_cpu)
    assert not is_faster(on_device, on_cpu, threads=8)
