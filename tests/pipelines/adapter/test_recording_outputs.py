"""Recordings of any length in one forward pass, against plain `transformers.pipeline`."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.adapter.recording_outputs import RecordingOutputs
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import decode_audio

from tests.support import tiny_audio

SOUNDS = tiny_audio.sounds()
SPEECH, SOUND = "automatic-speech-recognition", "audio-classification"


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(RecordingOutputs, "pays", staticmethod(lambda pipeline: True))


def with_mask(model, folder):
    """A model whose feature extractor says which numbers are a recording's own."""
    copied = shutil.copytree(model, folder)
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(
        json.dumps({**settings, "return_attention_mask": True})
    )
    return str(copied)


def run(task, model, change=None, sounds=SOUNDS):
    """Return the batch, and how many recordings each call of the model got."""
    stages = LoadTask(task=task, model=Model(path=model), columns=(("audio", "audio"),))()
    loaded, calls = stages.task.pipeline.model, []
    usual = loaded.forward

    def counted(*given, **named):
        calls.append(len(named["input_values"]))
        if change:
            change(named)
        return usual(*given, **named)

    loaded.forward = counted
    return stages.process(Batch(pa.table({"audio": sounds}))), calls


def answers(task, batch):
    if task == SPEECH:
        return batch.results["text"].to_pylist()
    return list(
        zip(batch.results["labels"].to_pylist(), batch.results["scores"].to_pylist(), strict=True)
    )


def truths(task, model):
    plain = transformers.pipeline(task, model=model, device="cpu")
    found = [plain(decode_audio(sound, tiny_audio.RATE)) for sound in SOUNDS]
    if task == SPEECH:
        return [answer["text"] for answer in found]
    return [
        ([a["label"] for a in one], pytest.approx([a["score"] for a in one], abs=1e-5))
        for one in found
    ]


@pytest.mark.parametrize("task", [SPEECH, SOUND])
def test_all_of_a_micro_batch_are_heard_at_once(models, tmp_path, task):
    model = with_mask(models[task], tmp_path / "model")
    batch, calls = run(task, model)
    assert answers(task, batch) == truths(task, model)
    assert calls.count(1) == 4  # that were tried
    assert max(calls) > 1


def test_a_model_that_hears_what_fills_them_up_hears_each_alone(models, tmp_path):
    model = with_mask(models[SPEECH], tmp_path / "model")
    batch, calls = run(SPEECH, model, change=lambda named: named.pop("attention_mask"))
    assert answers(SPEECH, batch) == truths(SPEECH, model)
    assert calls.count(1) >= len(SOUNDS)


def test_recordings_of_nearly_one_length_show_what_fills_others_up(models, tmp_path):
    model = with_mask(models[SPEECH], tmp_path / "model")
    near = [tiny_audio.wav((15_400 + 4 * i) / tiny_audio.RATE, i) for i in range(5)]
    _, calls = run(SPEECH, model, lambda named: named.pop("attention_mask"), near)
    assert calls == [1, 1, 1, 1, 4, *[1] * len(near)]


def test_parts_that_are_too_short_for_a_model_are_not_tried(tmp_path):
    """SEW takes frames by twos: where its part failed, every micro-batch was tried again."""
    config = transformers.SEWConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(25, 16), feat_extract_norm="layer",
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.SEWForSequenceClassification(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    sounds = [tiny_audio.wav((3_500 + 40 * i) / tiny_audio.RATE, i) for i in range(5)]
    batch, calls = run(SOUND, str(tmp_path), sounds=sounds)
    assert not batch.failures
    assert calls[:5] == [1, 1, 1, 1, 4]


def test_one_that_is_too_short_fails_alone(models, tmp_path):
    model = with_mask(models[SPEECH], tmp_path / "model")
    stages = LoadTask(task=SPEECH, model=Model(path=model), columns=(("audio", "audio"),))()
    sounds = [*SOUNDS, tiny_audio.wav(0.001, 1)]
    batch = stages.process(Batch(pa.table({"audio": sounds})))
    assert {row: failure.stage for row, failure in batch.failures.items()} == {8: "forward"}
    assert answers(SPEECH, batch)[:8] == truths(SPEECH, model)
