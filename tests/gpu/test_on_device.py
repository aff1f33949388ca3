"""Pictures and spectra that a GPU prepares are those of the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from pipemill.pipelines.adapter.on_device.picture_resize import resize_on_device
from pipemill.pipelines.adapter.on_device.side_stream import SideStream
from pipemill.pipelines.adapter.on_device.spectra import extract_on_device
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media

pytest.importorskip("PIL")


def test_pictures_are_those_of_the_cpu(models):
    model = Model(path=models["image-classification"], dtype="float32")
    load = LoadTask(task="image-classification", model=model, columns=(("image", "image"),))
    adapter = load().task

    def preprocess(pipeline, file):
        with adapter.open_row({"image": file}) as prepared:
            return [pipeline.preprocess(prepared)]

    found = resize_on_device(adapter.pipeline, adapter.levels, preprocess, "cuda:0")
    assert found is not None
    for seed in range(20):
        file = made_media.png(made_media.picture(61 + 40 * seed, 47 + 30 * seed, seed))
        usual = preprocess(adapter.levels.pipeline, file)[0]["pixel_values"]
        levels = preprocess(found.pipeline, file)[0]["pixel_values"]
        assert levels.device.type == "cpu"
        assert torch.equal(levels, usual)


def test_spectra_are_those_of_the_cpu(models):
    from transformers import WhisperFeatureExtractor

    class Pipeline:
        feature_extractor = WhisperFeatureExtractor(feature_size=80)

    assert extract_on_device(copy.copy(Pipeline()), "cuda:0") is not None


def test_a_full_gpu_leaves_it_to_the_cpu():
    stream = SideStream("cuda:0")
    assert stream.compute(lambda: torch.empty(2**50, dtype=torch.uint8, device="cuda:0")) is None
    assert stream.compute(lambda: stream.to_host(torch.ones(2, device="cuda:0"))).tolist() == [1, 1]
