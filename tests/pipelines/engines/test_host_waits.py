"""The host waits for a GPU as seldom as it can: while it does, the GPU gets nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pipemill.actors.batch import Batch
from pipemill.pipelines.engines.generation.slot_decoder import SlotDecoder
from pipemill.pipelines.engines.speech.window_decoder import WindowDecoder
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import encoders, tiny, tiny_audio
from tests.support.host_waits import HostWaits

REFERENCES = Path(__file__).parent.parent.parent / "references/models"
TEXTS = {"text": tiny.texts(5, seed=5, longest=12)}
SOUNDS = {"audio": tiny_audio.sounds()[:3]}
PENALTY = {"repetition_penalty": 1.2}  # looks at each text's tokens
SAMPLED = {"do_sample": True, "top_k": 5, "top_p": 0.9}
WRITERS = {
    "greedy": ("text-generation", {"do_sample": False}),
    "rules": ("text-generation", {"do_sample": False, **PENALTY}),
    "sampled": ("text-generation", SAMPLED),
    "beams": ("text-generation", {"do_sample": False, "num_beams": 3}),
    "bart": ("summarization", {"do_sample": False, "num_beams": 1, "min_new_tokens": 8}),
    "bart, beams": ("summarization", {"do_sample": False, "num_beams": 2, "min_new_tokens": 8}),
    "mbart": (
        "translation_en_to_de",
        {"num_beams": 1, "min_new_tokens": 8, "src_lang": "en_XX", "tgt_lang": "de_DE"},
    ),
    "t5": ("text2text-generation", {"num_beams": 1, "min_new_tokens": 8}),
}


def process(task, model, columns, parameters):
    load = LoadTask(
        task=task,
        model=Model(path=str(model)),
        columns=tuple((name, name) for name in columns),
        parameters=json.dumps(parameters),
        max_tokens=200,
    )
    batch = load().process(Batch(pa.table(columns)))
    assert not batch.failures, batch.failures


@pytest.fixture
def note(monkeypatch):
    """Return a function that counts what waits in each call of a method."""

    def of(owner, name):
        calls, usual = [], getattr(owner, name)

        def counted(*given, **more):
            with HostWaits() as waits:
                returned = usual(*given, **more)
            calls.append(waits.found)
            return returned

        monkeypatch.setattr(owner, name, counted)
        return calls

    return of


@pytest.mark.parametrize("lengths", [[7, 7, 7], [9, 4, 1]])
@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "Qwen2", "MPNet", "DebertaV2"])
def test_a_micro_batch_of_texts_is_not_waited_for(kind, head, lengths):
    encoder = encoders.encoder(encoders.loaded(kind, head))
    chunks = encoders.chunks(encoders.sequences(encoder.pipeline, lengths))
    encoder(chunks)
    with HostWaits() as waits:
        encoder(chunks)
    assert waits.found == []


@pytest.mark.parametrize("kind", WRITERS)
def test_a_token_of_all_texts_is_waited_for_once(models, note, kind):
    task, parameters = WRITERS[kind]
    folder = REFERENCES / kind.partition(",")[0]
    model = folder if folder.is_dir() else models[task]
    steps = note(SlotDecoder, "step")
    process(task, model, TEXTS, {"max_new_tokens": 8, **parameters})
    assert len(steps) >= 7
    assert {tuple(found) for found in steps} == {("tolist",)}


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_token_of_all_recordings_is_waited_for_once(models, note, beams, timestamps):
    steps = note(WindowDecoder, "step")
    generate = {"max_new_tokens": 8, "num_beams": beams}
    parameters = {"return_timestamps": timestamps, "generate_kwargs": generate}
    process("automatic-speech-recognition", models["whisper"], SOUNDS, parameters)
    assert len(steps) >= 7
    assert {tuple(found) for found in steps} == {("tolist",)}


@pytest.mark.parametrize("lengths", [[7, 7], [9, 4]])
def test_tokens_that_a_model_hides_by_itself_stay_hidden(lengths):
    model = encoders.loaded("MPNet").model

    def hide(module, given, named):
        mask = named["attention_mask"] * (named["input_ids"] != 1)
        return given, {**named, "attention_mask": mask}

    pipeline = encoders.loaded("MPNet")
    made = encoders.sequences(pipeline, lengths)
    others = [{**one, "input_ids": one["input_ids"].clip(2)} for one in made]
    for one in made:
        one["input_ids"][1] = 1
    usual, _ = encoders.encoder(encoders.loaded("MPNet"))(encoders.chunks(made))
    for each in (model, pipeline.model):
        each.register_forward_pre_hook(hide, with_kwargs=True)
    expected = []
    for one in made:
        ids = torch.from_numpy(one["input_ids"])[None]
        with torch.no_grad():
            expected.append(model(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0])
    encoder = encoders.encoder(pipeline)
    for _ in range(9):  # nothing is hidden
        encoder(encoders.chunks(others))
    found, _ = encoder(encoders.chunks(made))
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)
    assert not torch.allclose(found, usual, atol=1e-2)


def test_what_waits_is_found():
    numbers = torch.arange(3)
    with HostWaits() as waits:
        numbers.tolist()
        bool((numbers > 2).all())
        numbers[numbers > 1]
        torch.tensor([1], device="cpu")
        numbers[torch.tensor([0])] + torch.zeros(1)
    assert waits.found == [
        "tolist",
        "aten._local_scalar_dense.default",
        "aten.index.Tensor",
        "tensor",
    ]
