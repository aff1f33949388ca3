"""Tasks that prepare their media on a device, as they would on a GPU, against those on the CPU."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pipemill.actors.batch import Batch
from pipemill.pipelines.adapter.images.level_processor import LevelProcessor
from pipemill.pipelines.adapter.on_device import picture_resize, spectra
from pipemill.pipelines.adapter.on_device.picture_resize import DeviceProcessor
from pipemill.pipelines.adapter.on_device.spectra import DeviceExtractor
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import made_media, tiny_audio

pytest.importorskip("PIL")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Let each load prepare on the device, which is the CPU."""
    monkeypatch.setattr(picture_resize, "is_on_gpu", lambda pipeline: True)
    monkeypatch.setattr(spectra, "rounds_on_gpu", lambda pipeline: True)
    for module in (picture_resize, spectra):
        monkeypatch.setattr(module, "is_faster", lambda *given: True)


def _load(task, path, column):
    model = Model(path=str(path), dtype="bfloat16")
    return LoadTask(task=task, model=model, columns=((column, column),))()


@pytest.mark.parametrize("task", ["image-classification", "image-feature-extraction"])
def test_pictures(models, request, monkeypatch, task):
    files = [made_media.png(made_media.picture(61 + n % 3, 47, n)) for n in range(6)]
    rows = Batch(pa.table({"image": [*files[:3], b"no image", *files[3:]]}))
    usual = _load(task, models[task], "image").process(rows)
    request.getfixturevalue("as_on_a_gpu")
    stages = _load(task, models[task], "image")
    assert isinstance(stages.task.levels.pipeline.image_processor, DeviceProcessor)
    monkeypatch.delattr(LevelProcessor, "__call__")  # the CPU is not asked
    found = stages.process(rows)
    assert list(found.failures) == list(usual.failures) == [3]
    assert found.results.equals(usual.results)


def test_recordings(models, request):
    rows = Batch(pa.table({"audio": [*tiny_audio.sounds()[:5], b"no sound"]}))
    task, model = "automatic-speech-recognition", models["whisper"]
    usual = _load(task, model, "audio").process(rows)
    request.getfixturevalue("as_on_a_gpu")
    stages = _load(task, model, "audio")
    assert isinstance(stages.task.preparing.feature_extractor, DeviceExtractor)
    found = stages.process(rows)
    assert list(found.failures) == list(usual.failures) == [5]
    assert found.results.equals(usual.results)
    assert len(set(usual.results["text"].to_pylist())) > 2
