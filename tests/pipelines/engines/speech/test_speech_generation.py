"""Recordings that are written down beside others get the texts that they get alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from functools import lru_cache

import pytest
import torch
import transformers
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.speech.speech_generation import (
    SpeechGeneration,
    make_speech_generation,
)
from pipemill.pipelines.engines.speech.window_decoder import WindowDecoder
from pipemill.pipelines.media import decode_audio

from tests.support import tiny_audio
from tests.support.row_by_row import assert_rows, run

TASK = "automatic-speech-recognition"
SECONDS = (0.1, 0.3, 1.0, 1.5, 1.99, 2.0, 2.02, 2.6, 5.0, 0.7)
# Silence, and then from very short to longer than a window of the model, which is 2 s.
SOUNDS = [tiny_audio.wav(0.5, 3)[:44] + bytes(16_000)]
SOUNDS += [tiny_audio.wav(seconds, number) for number, seconds in enumerate(SECONDS)]
SHORT = [sound for sound in SOUNDS if len(sound) <= 2 * 2 * tiny_audio.RATE + 44]
LONG = [SOUNDS[0], SOUNDS[3], *SOUNDS[6:10]]


@lru_cache(maxsize=2)
def plain(model):
    return transformers.pipeline(TASK, model=model, device="cpu")


@pytest.fixture(scope="module")
def model(models, tmp_path_factory):
    """A model whose texts end after few or many tokens, by how they are searched."""
    folder = shutil.copytree(models["whisper"], tmp_path_factory.mktemp("whisper") / "model")
    whisper = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        whisper.get_decoder().embed_tokens.weight[256] = 2 * torch.randn(16, generator=random)
        # What was written before matters.
        attention = whisper.get_decoder().layers[0].self_attn
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
            layer.weight *= 2
    whisper.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def at_once(monkeypatch):
    """How many windows each call of the engine got."""
    counts, write_all = [], SpeechGeneration.write_all

    def count(self, prompts, most=None):
        counts.append(len(prompts))
        return write_all(self, prompts, most)

    monkeypatch.setattr(SpeechGeneration, "write_all", count)
    return counts


def heard(sound):
    return decode_audio(sound, tiny_audio.RATE)


def spoken(answer):
    """Return what the task gives for an answer of the pipeline."""
    if "chunks" not in answer:
        return {"text": answer["text"]}
    chunks = []
    for chunk in answer["chunks"]:
        start, end = chunk.get("timestamp") or (None, None)
        known = {"text": chunk["text"], "start": start, "end": end}
        chunks.append(known | ({"language": chunk["language"]} if "language" in chunk else {}))
    return {"text": answer["text"], "chunks": chunks}


def late_timestamps(model):
    """Return the tokens of times beyond the model's window, which this model likes to write.

    Without them a long recording has several windows.
    """
    tokenizer = plain(model).tokenizer
    return tokenizer.convert_tokens_to_ids([f"<|{i * 0.02:.2f}|>" for i in range(60, 1501)])


SEARCHES = [
    {},
    {"num_beams": 5},
    {"num_beams": 4, "generate_kwargs": {"length_penalty": 0.2}},
    {"num_beams": 3, "generate_kwargs": {"length_penalty": 2.0, "early_stopping": True}},
    {"num_beams": 2, "generate_kwargs": {"early_stopping": "never", "max_new_tokens": 40}},
    {
        "num_beams": 4,
        "generate_kwargs": {"suppress_tokens": [49, 50, 51], "repetition_penalty": 1.3},
    },
    {"generate_kwargs": {"begin_suppress_tokens": list(range(256)), "max_new_tokens": 5}},
    {"generate_kwargs": {"language": "de", "task": "translate", "num_beams": 2}},
    {"return_language": True, "generate_kwargs": {"language": None, "task": None}},
]


@pytest.mark.parametrize("parameters", SEARCHES, ids=str)
def test_recordings_of_one_window(model, at_once, parameters):
    batch = run(TASK, model, {"audio": SHORT}, parameters, budgets=(10_000,))
    assert_rows(batch, [spoken(plain(model)(heard(s), **parameters)) for s in SHORT], 4)
    assert len(SHORT) in at_once


@pytest.mark.parametrize(
    "parameters",
    [
        {"return_timestamps": True},
        {"return_timestamps": True, "num_beams": 3},
        {"chunk_length_s": 1.5, "num_beams": 2},
        {"chunk_length_s": 2, "stride_length_s": 0.3, "return_timestamps": True},
    ],
    ids=str,
)
def test_long_recordings(model, at_once, monkeypatch, parameters):
    begun, begin = [], WindowDecoder.begin
    monkeypatch.setattr(
        WindowDecoder, "begin", lambda self, window: (begun.append(1), begin(self, window))[1]
    )
    if "chunk_length_s" not in parameters:
        own = {"suppress_tokens": late_timestamps(model), "max_new_tokens": 30}
        parameters = {**parameters, "generate_kwargs": own}
    truth = [spoken(plain(model)(heard(s), **parameters)) for s in LONG]
    batch = run(TASK, model, {"audio": LONG}, parameters, budgets=(10_000,))
    assert_rows(batch, truth)
    assert len(begun) > len(at_once) * len(LONG)  # windows: a recording may have several
    assert min(at_once) >= len(LONG)
    # The order of the rows, and what else is in their split, change nothing.
    batch = run(TASK, model, {"audio": LONG[:2:-1]}, parameters, budgets=(10_000,))
    assert_rows(batch, truth[:2:-1])


def test_a_recording_that_fails_leaves_the_others_alone(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["return_timestamps"] = False  # as OpenAI's models have it
    (folder / "generation_config.json").write_text(json.dumps(settings))
    rows = [SOUNDS[3], b"RIFF", SOUNDS[8], SOUNDS[1]]  # the third is longer than a window
    batch = run(TASK, folder, {"audio": rows}, budgets=(10_000,))
    texts = [spoken(plain(model)(heard(rows[row]))) for row in (0, 3)]
    assert_rows(batch, [texts[0], "expand", "regroup", texts[1]], 2)
    assert "3000 mel input features" in batch.failures[2].message


def make_prompts(pipeline, sounds, **keywords):
    return [
        Prompt(inputs=chunk, keywords=keywords, settings="", seed=0)
        for sound in sounds
        for chunk in pipeline.preprocess(heard(sound))
    ]


def texts(pipeline, outputs):
    for output in outputs:
        if isinstance(output, Exception):
            raise output
    return [pipeline.postprocess([output])["text"] for output in outputs]


@pytest.fixture
def engine(model):
    return make_speech_generation(transformers.pipeline(TASK, model=model, device="cpu"))


def test_windows_share_steps_and_leave_when_they_end(model, engine, monkeypatch):
    counts, step = [], engine.decoder.step
    monkeypatch.setattr(
        engine.decoder, "step", lambda windows: (counts.append(len(windows)), step(windows))
    )
    outputs = engine.write_all(make_prompts(engine.pipeline, SHORT, num_beams=2))
    assert texts(engine.pipeline, outputs) == [
        plain(model)(heard(s), num_beams=2)["text"] for s in SHORT
    ]
    assert max(counts) > 3
    assert counts[-1] < max(counts)


def test_fewer_windows_share_a_step_when_memory_runs_out(model, engine, monkeypatch):
    step, failed = engine.decoder.step, []

    def step_in_little_memory(windows):
        if len(windows) > 2:
            failed.append(len(windows))
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")
        step(windows)

    monkeypatch.setattr(engine.decoder, "step", step_in_little_memory)
    outputs = engine.write_all(make_prompts(engine.pipeline, SHORT))
    assert texts(engine.pipeline, outputs) == [plain(model)(heard(s))["text"] for s in SHORT]
    assert min(failed) > 2
    assert engine._most <= 16


def test_an_error_that_is_no_rows_fault_is_raised(engine, monkeypatch):
    class Broken(RuntimeError):
        no_rows_fault = True

    def break_down(windows):
        raise Broken("the device is gone")

    monkeypatch.setattr(engine.decoder, "step", break_down)
    with pytest.raises(Broken, match="the device is gone"):
        engine.write_all(make_prompts(engine.pipeline, SHORT))


def test_an_interrupt_ends_what_is_in_flight(engine, monkeypatch):
    """The threads of recordings would go on to their ends otherwise, for minutes."""
    step, steps = engine.decoder.step, []

    def step_and_interrupt(windows):
        steps.append(len(windows))
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2 if len(steps) >= 3 else 0)
        step(windows)

    monkeypatch.setattr(engine.decoder, "step", step_and_interrupt)
    prompts = make_prompts(engine.pipeline, SHORT * 20, min_new_tokens=16)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.write_all(prompts)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(steps) < 12


def test_the_first_window_is_encoded_once_although_its_language_is_looked_for(
    model, engine, monkeypatch
):
    calls, encode = [], engine._encode_usually
    monkeypatch.setattr(
        engine, "_encode_usually", lambda *a, **k: (calls.append(1), encode(*a, **k))[1]
    )
    usual = transformers.pipeline(TASK, model=model, device="cpu")
    for pipeline in (engine.pipeline, usual):
        pipeline.model.generation_config.update(language=None, task=None)
    outputs = engine.write_all(make_prompts(engine.pipeline, SHORT, return_language=True))
    assert len(calls) == len(SHORT)
    alone = [
        usual.forward(p.inputs, **p.keywords)
        for p in make_prompts(usual, SHORT, return_language=True)
    ]
    assert [one["tokens"].tolist() for one in outputs] == [one["tokens"].tolist() for one in alone]
    assert [one["lang_id"] for one in outputs] == [one["lang_id"] for one in alone]


@pytest.mark.parametrize(
    "keywords",
    [
        {"return_timestamps": "word"},
        {"temperature": 1},
        {"temperature": (0.0, 0.4)},
        {"return_dict_in_generate": True},
        {"num_return_sequences": 2},
        {"logprob_threshold": -1.0},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=str,
)
def test_other_searches_are_left_to_transformers(engine, keywords):
    assert engine.schedules({"num_beams": 5})
    assert not engine.schedules(keywords)


def test_a_model_whose_decoder_does_more_is_left_alone(model):
    pipeline = transformers.pipeline(TASK, model=model, device="cpu")
    layer = pipeline.model.get_decoder().layers[0]
    layer.register_forward_hook(lambda layer, given, output: output.tanh())
    assert make_speech_generation(pipeline) is None
    assert "forward" not in vars(pipeline.model.get_encoder())


def test_a_prompt_that_another_search_must_follow(engine):
    """Ends of another kind come from a plug-in's model: transformers itself searches then."""

    class EndsSoon(transformers.StoppingCriteria):
        def __call__(self, ids, scores, **more):
            return torch.full((len(ids),), ids.shape[1] > 7)

    prompts = make_prompts(engine.pipeline, SHORT, stopping_criteria=[EndsSoon()])
    outputs = engine.write_all(prompts)
    truth = [engine.pipeline.forward(p.inputs, **p.keywords)["tokens"].tolist() for p in prompts]
    assert [output["tokens"].tolist() for output in outputs] == truth
