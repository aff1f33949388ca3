"""Texts written for several rows at once are those that each row gets alone."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import torch
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import tiny, tiny_generators
from tests.support.restored_cases import REFERENCES
from tests.support.row_by_row import run

PROMPTS = [*tiny.texts(9, seed=2, longest=20), "Anna", "red red red red"]
GREEDY = {"do_sample": False, "max_new_tokens": 9}


def forward_passes(task, model, columns, parameters):
    """Micro-batches when several rows are computed, after a run that has tried everything."""
    return run(task, model, columns, parameters, budgets=(100_000,)).stats["micro_batches"]


def written_together(task, model, parameters):
    """Of all prompts, after checking that each micro-batch was one forward pass."""
    load = LoadTask(
        task=task,
        model=Model(path=model),
        columns=(("text", "text"),),
        parameters=json.dumps(parameters),
        max_tokens=1_000_000,
    )
    stages = load()
    batch = stages.process(Batch(pa.table({"text": PROMPTS})))
    forwards = stages.task.forwards
    assert forwards.schedules or forwards.alone == {True: False}
    return batch.results["generated_text"].to_pylist()


@pytest.mark.parametrize(
    ("more", "together"),
    [
        ({}, True),
        ({"return_full_text": False}, True),
        ({"repetition_penalty": 1.5}, True),
        ({"no_repeat_ngram_size": 2, "min_length": 30}, True),
        ({"max_length": 60, "max_new_tokens": None}, True),
        ({"num_beams": 3, "num_return_sequences": 2}, True),
        ({"use_cache": False, "num_beams": 3}, True),
        ({"use_cache": False, "num_beams": 3, "num_return_sequences": 2}, True),
        # Padding would count: only prompts of equal length are written on together.
        ({"use_cache": False, "num_beams": 3, "repetition_penalty": 1.5}, False),
        ({"use_cache": False, "min_length": 30}, False),
    ],
)
def test_a_decoder_goes_on_from_prompts_of_any_length(models, more, together):
    parameters = {**GREEDY, **more}
    model = models["text-generation"]
    truth = transformers.pipeline("text-generation", model=model)
    expected = [[one["generated_text"] for one in truth(p, **parameters)] for p in PROMPTS]
    batch = run("text-generation", model, {"text": PROMPTS}, parameters)
    several = parameters.get("num_return_sequences", 1) > 1
    got = batch.results["generated_texts" if several else "generated_text"].to_pylist()
    assert got == (expected if several else [texts[0] for texts in expected])
    assert len({str(one) for one in expected}) > 6
    passes = forward_passes("text-generation", model, {"text": PROMPTS}, parameters)
    assert passes == 1 if together else passes > 1


@pytest.mark.parametrize("pad_ends", [True, False])
def test_what_fills_a_row_up_is_left_out_whichever_token_ended_it(models, pad_ends):
    model = models["text-generation"]
    truth = transformers.pipeline("text-generation", model=model)
    ends = {
        truth(prompt, return_tensors=True, **GREEDY)[0]["generated_token_ids"][-n]
        for n, prompt in enumerate(PROMPTS[:3], start=3)
    }
    parameters = {
        **GREEDY,
        "skip_special_tokens": False,
        "eos_token_id": [*ends, *([truth.tokenizer.pad_token_id] if pad_ends else [])],
    }
    expected = [truth(prompt, **parameters)[0]["generated_text"] for prompt in PROMPTS]
    assert len({len(truth.tokenizer(text)["input_ids"]) for text in expected}) > 2
    assert written_together("text-generation", model, parameters) == expected


def test_a_text_without_a_prompt_begins_as_if_it_were_alone(models):
    model, prompts = models["text-generation"], [PROMPTS[0], "", *PROMPTS[1:4], "", PROMPTS[4]]
    truth = transformers.pipeline("text-generation", model=model)
    assert not truth.tokenizer("")["input_ids"]
    expected = [truth(prompt, **GREEDY)[0]["generated_text"] for prompt in prompts]
    batch = run("text-generation", model, {"text": prompts}, GREEDY)
    assert batch.results["generated_text"].to_pylist() == expected


def test_a_text_without_tokens_fails_as_it_does_alone_though_others_share_a_pass(tmp_path):
    """Longformer's encoder-decoder writes in no slots, and padding would be a prompt."""
    config = transformers.LEDConfig(
        vocab_size=360, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, attention_window=[8, 8],
        max_encoder_position_embeddings=512, max_decoder_position_embeddings=256, pad_token_id=1,
        eos_token_id=2, bos_token_id=0, decoder_start_token_id=2, init_std=0.8,
    )  # fmt: skip
    torch.manual_seed(3)
    transformers.LEDForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_generators.words(256).save_pretrained(tmp_path)
    texts = [*PROMPTS[:6], ""]
    batch = run("text2text-generation", str(tmp_path), {"text": texts}, GREEDY)
    assert list(batch.failures) == [6]


def test_prompts_of_unequal_length_are_tried_apart_from_equal_ones(models, monkeypatch):
    """The first micro-batch may be of prompts as long as can be, which need no padding."""
    from pipemill.pipelines.engines.generation.batched_generation import BatchedGeneration

    broken = BatchedGeneration._stack

    def wrong(self, inputs):
        together = broken(self, inputs)
        if len({one["input_ids"].shape[1] for one in inputs}) > 1:
            together["input_ids"][:] = 5
        return together

    monkeypatch.setattr(BatchedGeneration, "_stack", wrong)
    model, prompts = models["text-generation"], ["red river " * 30] * 4 + PROMPTS
    # A task that nothing was tried on.
    parameters = {**GREEDY, "max_new_tokens": 8, "use_cache": False}
    truth = transformers.pipeline("text-generation", model=model)
    expected = [truth(prompt, **parameters)[0]["generated_text"] for prompt in prompts]
    batch = run("text-generation", model, {"text": prompts}, parameters, budgets=(260, 1_000_000))
    assert batch.results["generated_text"].to_pylist() == expected


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize(
    "parameters", [{"max_new_tokens": 12}, {"num_beams": 1, "max_new_tokens": 15, "min_length": 9}]
)
def test_an_encoder_and_a_decoder(kind, parameters):
    import pipemill

    pipemill.restore_pipelines()
    model = str(REFERENCES / "models" / kind)
    truth = transformers.pipeline("summarization", model=model)
    expected = [truth(text, **parameters)[0]["summary_text"] for text in PROMPTS]
    batch = run("summarization", model, {"text": PROMPTS}, parameters)
    assert batch.results["summary_text"].to_pylist() == expected
    assert len(set(expected)) > 6
    assert forward_passes("summarization", model, {"text": PROMPTS}, parameters) == 1


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_where_a_word_ends_a_text_what_follows_is_left_out_and_nothing_else(kind, beams, cached):
    """With beams transformers fills up with the end's token where the padding's is 0."""
    import pipemill

    pipemill.restore_pipelines()
    model = str(REFERENCES / "models" / kind)
    truth = transformers.pipeline("text2text-generation", model=model)
    usual = {"max_new_tokens": 9, "num_beams": beams, "use_cache": cached}
    written = [truth(text, return_tensors=True, **usual)[0] for text in PROMPTS]
    long = [ids for one in written if len(ids := one["generated_token_ids"].tolist()) > 6]
    ends, last = [ids[3] for ids in long], long[-1][-1]
    for more in (
        {"eos_token_id": ends[0]},
        {"eos_token_id": ends[:3]},
        {"eos_token_id": ends[0], "pad_token_id": last},
    ):
        parameters = {**usual, **more}
        expected = [truth(text, **parameters)[0]["generated_text"] for text in PROMPTS]
        assert len(set(expected)) > 5
        assert written_together("text2text-generation", model, parameters) == expected
