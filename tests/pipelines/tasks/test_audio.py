"""Tasks that hear or speak, against plain `transformers.pipeline`, one row at a time."""

from __future__ import annotations

import io
import json
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.adapter.row_seed import seed_row
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import decode_audio

from tests.support import tiny_audio
from tests.support.row_by_row import assert_rows, run

SOUNDS = tiny_audio.sounds()
LABELS = ["river", "bread", "cold"]


@lru_cache(maxsize=8)
def plain(task, model):
    return transformers.pipeline(task, model=model, device="cpu")


def heard(sound, rate=tiny_audio.RATE):
    return decode_audio(sound, rate)


def ranked(answer):
    return {"labels": [a["label"] for a in answer], "scores": [a["score"] for a in answer]}


@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": 2}, {"function_to_apply": "sigmoid", "top_k": 3}]
)
def test_audio_classification(models, parameters):
    task = "audio-classification"
    truth = plain(task, models[task])
    batch = run(task, models[task], {"audio": SOUNDS}, parameters)
    assert_rows(batch, [ranked(truth(heard(s), **parameters)) for s in SOUNDS], 8)


def test_audio_classification_with_top_k_of_each_row_and_rows_that_fail(models):
    task = "audio-classification"
    truth = plain(task, models[task])
    sounds = [SOUNDS[0], b"no sound", SOUNDS[1], None, SOUNDS[2], SOUNDS[3][:400], SOUNDS[4]]
    counts = [1, 1, 2, 2, None, 3, 4]
    batch = run(task, models[task], {"audio": sounds, "top_k": counts})
    expected = [
        "expand" if row in (1, 3, 5) else ranked(truth(heard(sound), top_k=counts[row]))
        for row, sound in enumerate(sounds)
    ]
    assert_rows(batch, expected)


def test_audio_classification_of_arrays_and_files(models, tmp_path):
    task = "audio-classification"
    truth = plain(task, models[task])
    arrays = [heard(s) for s in SOUNDS[:3]]
    structs = [{"array": a.tolist(), "sampling_rate": tiny_audio.RATE} for a in arrays]
    expected = [ranked(truth(array)) for array in arrays]
    assert_rows(run(task, models[task], {"audio": structs}), expected)
    whole = [[round(x * 2**15) for x in array.tolist()] for array in arrays]
    assert max(map(max, whole)) > 1000
    type = pa.struct([("array", pa.list_(pa.int16())), ("sampling_rate", pa.int64())])
    rows = [{"array": array, "sampling_rate": tiny_audio.RATE} for array in whole]
    rows.insert(1, {"array": [1, None], "sampling_rate": tiny_audio.RATE})
    batch = run(task, models[task], {"audio": pa.array([*rows, None], type)})
    assert_rows(batch, [expected[0], "expand", *expected[1:], "expand"])
    for number, sound in enumerate(SOUNDS[:3]):
        (tmp_path / f"{number}.wav").write_bytes(sound)
    names = [f"{number}.wav" for number in range(3)]
    batch = run(task, models[task], {"audio": names}, roots=(str(tmp_path),))
    assert_rows(batch, expected)


def _spoken(answer):
    if "chunks" not in answer:
        return {"text": answer["text"]}
    chunks = [
        {"text": c["text"], "start": c["timestamp"][0], "end": c["timestamp"][1]}
        for c in answer["chunks"]
    ]
    return {"text": answer["text"], "chunks": chunks}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"return_timestamps": "char"},
        {"return_timestamps": "word"},
        {"chunk_length_s": 0.5},
        {"chunk_length_s": 0.6, "stride_length_s": [0.2, 0.1], "return_timestamps": "word"},
        {"chunk_length_s": 1, "stride_length_s": 0.3, "return_timestamps": "char"},
    ],
)
def test_speech_recognition_by_ctc(models, parameters):
    task = "automatic-speech-recognition"
    truth = plain(task, models[task])
    batch = run(task, models[task], {"audio": SOUNDS}, parameters)
    assert_rows(batch, [_spoken(truth(heard(s), **parameters)) for s in SOUNDS], 8)
    if "chunk_length_s" in parameters:
        assert batch.stats["chunks"] > len(SOUNDS) + 5


def test_a_sound_that_is_none_leaves_its_neighbours_alone(models):
    task = "automatic-speech-recognition"
    truth = plain(task, models[task])
    sounds = [SOUNDS[1], b"RIFF", SOUNDS[4], tiny_audio.wav(0.001, 1), SOUNDS[0]]
    batch = run(task, models[task], {"audio": sounds}, {"chunk_length_s": 0.5})
    expected = [_spoken(truth(heard(s), chunk_length_s=0.5)) for s in (SOUNDS[1], SOUNDS[4])]
    last = _spoken(truth(heard(SOUNDS[0]), chunk_length_s=0.5))
    assert_rows(batch, [expected[0], "expand", expected[1], "forward", last])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"return_timestamps": True},
        {"return_timestamps": "word", "max_new_tokens": 8},
        {"return_timestamps": True, "chunk_length_s": 2, "stride_length_s": 0.3},
        {"generate_kwargs": {"language": "de", "max_new_tokens": 6}},
        {"language": "de", "task": "translate", "max_new_tokens": 6},
    ],
)
def test_speech_recognition_by_a_model_that_writes(models, parameters):
    sounds = [SOUNDS[0], SOUNDS[2], SOUNDS[4], tiny_audio.wav(2.6, 9)]
    task = "automatic-speech-recognition"
    if "return_timestamps" not in parameters:
        sounds.pop()  # longer than the model hears at once: only with timestamps
    truth = plain(task, models["whisper"])
    batch = run(task, models["whisper"], {"audio": sounds}, parameters, budgets=(1, 10_000))
    assert_rows(batch, [_spoken(truth(heard(s), **parameters)) for s in sounds])


def test_recordings_of_one_length_are_written_down_together(models):
    """By models without windows: what fills a recording up would change what most of them hear."""
    name, parameters = "automatic-speech-recognition", {"generate_kwargs": {"max_new_tokens": 8}}
    files = [tiny_audio.wav([0.5, 0.8][seed % 2], seed) for seed in range(10)]
    truth = transformers.pipeline(name, model=models["moonshine"], device="cpu")
    sounds = [decode_audio(file, tiny_audio.RATE) for file in files]
    expected = [truth(sound, **parameters)["text"] for sound in sounds]
    stages = LoadTask(
        task=name,
        model=Model(path=models["moonshine"]),
        columns=(("audio", "audio"),),
        parameters=json.dumps(parameters),
        max_tokens=10**6,
    )()
    for passes in ([1, 1, 1, 1, 4, 5, 5], [5, 5]):
        seen = []
        encoder = stages.task.pipeline.model.get_encoder()
        hook = encoder.register_forward_hook(lambda *call: seen.append(len(call[2][0])))  # noqa: B023
        batch = stages.process(Batch(pa.table({"audio": files})))
        hook.remove()
        assert batch.results["text"].to_pylist() == expected
        assert sorted(seen) == passes
    assert len(set(expected)) > 5


def test_the_language_that_was_heard(models):
    task, parameters = "automatic-speech-recognition", {"return_language": True}
    truth = plain(task, models["whisper"])
    batch = run(task, models["whisper"], {"audio": SOUNDS[:1]}, parameters, budgets=(1,))
    answer = truth(heard(SOUNDS[0]), **parameters)
    expected = [
        {
            "text": c["text"],
            "start": (c.get("timestamp") or (None, None))[0],
            "end": (c.get("timestamp") or (None, None))[1],
            "language": c["language"],
        }
        for c in answer["chunks"]
    ]
    assert_rows(batch, [{"text": answer["text"], "chunks": expected}], 1)


@pytest.mark.parametrize("parameters", [{}, {"hypothesis_template": "I hear {} here"}])
def test_zero_shot_audio_classification(models, parameters):
    task = "zero-shot-audio-classification"
    truth = plain(task, models[task])
    parameters = {"candidate_labels": LABELS, **parameters}
    batch = run(task, models[task], {"audio": SOUNDS}, parameters)
    expected = [ranked(truth(heard(s), **parameters)) for s in SOUNDS]
    assert_rows(batch, expected, 8)
    scores = np.array([sorted(one["scores"]) for one in expected])
    assert scores.std(axis=0).max() > 0.01, "the answers hardly differ"


def test_zero_shot_audio_classification_with_labels_of_each_row(models):
    task = "zero-shot-audio-classification"
    truth = plain(task, models[task])
    labels = [LABELS, LABELS[:2], ["town"], LABELS, [], LABELS[1:], LABELS, LABELS[:2]]
    for given in (labels, [", ".join(own) for own in labels]):
        batch = run(task, models[task], {"audio": SOUNDS, "candidate_labels": given})
        expected = [
            ranked(truth(heard(s), candidate_labels=own)) if own else "expand"
            for s, own in zip(SOUNDS, labels, strict=True)
        ]
        assert_rows(batch, expected)


def test_which_seconds_of_a_long_recording_clap_hears_depends_on_the_recording_alone(models):
    task = "zero-shot-audio-classification"
    long = [tiny_audio.wav(5, seed) for seed in range(3)]
    parameters = {"candidate_labels": LABELS}
    np.random.seed(1)
    first = run(task, models[task], {"audio": long}, parameters)  # several times the same
    drawn = np.random.random()
    np.random.seed(1)
    assert np.random.random() == drawn
    again = run(task, models[task], {"audio": long[::-1]}, parameters)
    assert_rows(again, first.results.to_pylist()[::-1])


def test_text_to_audio(models):
    import soundfile

    task, texts = (
        "text-to-audio",
        ["the mill", "a", "river stone wheel " * 6, "", "the mill", "日本"],
    )
    truth = plain(task, models[task])
    batch = run(task, models[task], {"text": texts})
    assert {row: f.stage for row, f in batch.failures.items()} == {3: "forward", 5: "forward"}
    unknown = "the text '日本' has no character that the model's tokenizer knows: narrow(): length"
    assert batch.failures[5].message.startswith(f"column 'my_text': {unknown}")
    lengths = set()
    for text, got in zip(texts, batch.results.to_pylist(), strict=True):
        if text and text != "日本":
            answer = truth(text)
            samples, rate = soundfile.read(io.BytesIO(got["audio"]), dtype="float32")
            assert rate == got["sampling_rate"] == answer["sampling_rate"]
            np.testing.assert_array_equal(samples, answer["audio"].ravel())
            lengths.add(len(samples))
    assert len(lengths) == 3


def test_text_to_audio_in_the_voice_of_a_list_of_numbers(tmp_path, monkeypatch):
    import soundfile
    import torch
    from transformers.pipelines import text_to_audio

    tiny_audio.speecht5(tmp_path)
    vocoder = str(tmp_path / "vocoder")
    monkeypatch.setattr(text_to_audio, "DEFAULT_VOCODER_ID", vocoder)  # of a model on the Hub
    truth, voice = plain("text-to-audio", str(tmp_path)), [0.5, -1, 2, 0, 1, 3, -2, 0.25]
    for voices in (voice, [voice]):
        given = {"forward_params": {"speaker_embeddings": voices}}
        batch = run("text-to-audio", tmp_path, {"text": ["the mill", "a"]}, given)
        assert not batch.failures
    for text, got in zip(["the mill", "a"], batch.results.to_pylist(), strict=True):
        with seed_row(truth.preprocess(text), truth.device):  # it drops numbers out by chance
            speaker = torch.tensor([voice])
            answer = truth(text, forward_params={"speaker_embeddings": speaker})
        samples, _ = soundfile.read(io.BytesIO(got["audio"]), dtype="float32")
        np.testing.assert_allclose(samples, answer["audio"].ravel(), atol=1e-5)


def test_text_to_audio_with_parameters_of_the_model(models):
    task, parameters = "text-to-audio", {"forward_params": {"speaker_id": None}}
    batch = run(task, models[task], {"text": ["the mill"]}, parameters)
    assert not batch.failures


def test_a_chat_is_spoken_in_the_voices_of_its_recordings(tmp_path):
    import soundfile

    tiny_audio.csm(tmp_path)
    rate, truth = 24_000, plain("text-to-audio", str(tmp_path))
    voices = [tiny_audio.wav(0.3 + 0.1 * n, n, rate if n else 8000) for n in range(4)]

    def chat(recordings, decode):
        before = [
            [{"type": "text", "text": f"river {n}"}, {"type": "audio", "audio": decode(voices[n])}]
            for n in recordings
        ]
        contents = [*before, [{"type": "text", "text": "the mill"}]]
        return [{"role": "0", "content": content} for content in contents]

    rows = [[0], [1], [], [2, 3], [1]]
    batch = run(
        "text-to-audio",
        tmp_path,
        {
            "messages": [chat(one, lambda sound: sound) for one in rows] + [None, None],
            "text": [None] * len(rows) + ["the mill", None],
        },
    )
    expected = [chat(one, lambda sound: heard(sound, rate)) for one in rows] + ["the mill"]
    found = []
    for given, got in zip(expected, batch.results.to_pylist(), strict=False):
        samples, _ = soundfile.read(io.BytesIO(got["audio"]), dtype="float32")
        np.testing.assert_array_equal(samples, truth(given)["audio"])
        found.append(samples.tobytes())
    assert len(set(found)) >= 4
    assert batch.failures[6].message == "the row has neither a text nor messages"


def test_a_spectrogram_is_no_sound(tmp_path):
    """Transformers gives that of FastSpeech2 with its vocoder as `audio`, without a rate."""
    tiny_audio.fastspeech2(tmp_path)
    answer = plain("text-to-audio", str(tmp_path))("the mill")
    assert answer["sampling_rate"] is None
    assert answer["audio"].shape[-1] == tiny_audio.MELS
    batch = run("text-to-audio", tmp_path, {"text": ["the mill"]})
    assert "no sampling rate" in batch.failures[0].message
