"""Texts that are written after images, beside others, are as if they were alone."""

from __future__ import annotations

import copy
import dataclasses
from functools import lru_cache, partial

import pytest
import torch
import transformers
from pipemill.pipelines.engines.base import Prompt, UnsupportedPrompt
from pipemill.pipelines.engines.generation.continuous_generation import ContinuousGeneration
from pipemill.pipelines.restored import restore_pipelines

from tests.support.image_rows import pictures
from tests.support.tiny_image_writers import make_inputs, make_pipeline

ROWS = range(9)
# Each text's length is another.
MOST = [3 + 2 * (n % 6) for n in ROWS]


def prompts_of(kind, more=None, images=lambda row: 1):
    prompts = []
    for row in ROWS:
        inputs = make_inputs(kind, row, images(row))
        keywords = {"generate_kwargs": {"max_new_tokens": MOST[row], **(more or {})}}
        load = None
        if len(inputs) > 3:
            load, inputs = (
                (lambda every=inputs: copy.copy(every)),
                {"input_ids": inputs["input_ids"]},
            )
        prompts.append(
            Prompt(inputs=inputs, keywords=keywords, settings=repr(keywords), seed=row, load=load)
        )
    return prompts


def one_by_one(pipeline, prompts):
    written = []
    for prompt in prompts:
        torch.manual_seed(prompt.seed)
        inputs = prompt.load() if prompt.load else copy.copy(prompt.inputs)
        output = pipeline.forward(inputs, **copy.deepcopy(prompt.keywords))
        written.append(output["generated_sequence"].flatten(0, -2).tolist())
    return written


def written_by(engine, prompts, most=None):
    outputs = engine.write_all(prompts, most)
    for output in outputs:
        if isinstance(output, Exception):
            raise output
    return [output["generated_sequence"].flatten(0, -2).tolist() for output in outputs]


SETTINGS = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 1.5},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "processors": {"repetition_penalty": 1.4, "min_new_tokens": 4},
}


@pytest.mark.parametrize("more", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "kind",
    [
        "llava",
        "idefics",
        "gemma",
        "paligemma",
        "qwen",
        "qwen with states",
        "qwen with videos",
        "florence",
        "omni",
        "phi",
    ],
)
def test_every_kind_of_model(kind, more):
    pipeline = make_pipeline(kind)
    prompts = prompts_of(kind, more)
    expected = one_by_one(pipeline, prompts)
    assert len({str(one) for one in expected}) == len(expected)
    for most in (1, 3, 64):
        engine = ContinuousGeneration(pipeline, "generated_sequence")
        assert engine.reads_more(prompts[0].load())
        assert written_by(engine, prompts, most) == expected
        assert engine.loop.steps < sum(MOST) or most == 1


@pytest.mark.parametrize("kind", ["llava", "idefics", "omni"])
def test_texts_without_images_run_beside_others(kind):
    """In these models they are computed as any text is, and may share their beginning."""
    pipeline = make_pipeline(kind)
    prompts = prompts_of(kind, images=lambda row: row % 3)
    expected = one_by_one(pipeline, prompts)
    assert {prompt.load is None for prompt in prompts} == {True, False}
    for most in (2, 64):
        engine = ContinuousGeneration(pipeline, "generated_sequence")
        assert written_by(engine, prompts, most) == expected


class AdaptedLinear(torch.nn.Module):
    """A layer with an adapter, as PEFT puts it into a model."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.disable_adapters = layer, False
        self.adapter = torch.nn.Linear(layer.in_features, layer.out_features)

    def enable_adapters(self, enabled):
        self.disable_adapters = not enabled

    def forward(self, inputs):
        return self.layer(inputs) + (0 if self.disable_adapters else 3 * self.adapter(inputs))


def make_adapted_pipeline():
    """A model with an adapter for prompts with images, as Granite Speech has one for sound."""
    pipeline = make_pipeline("llava")
    layer = pipeline.model.model.language_model.layers[0].mlp
    layer.down_proj = AdaptedLinear(layer.down_proj)

    class Adapted(type(pipeline.model)):
        def generate(self, *given, **named):
            layer.down_proj.enable_adapters("pixel_values" in named)
            return super().generate(*given, **named)

    pipeline.model.__class__ = Adapted
    return pipeline, layer.down_proj


@pytest.mark.parametrize("between", [False, True])
def test_an_adapter_for_images_is_on_for_no_other_text(monkeypatch, between):
    pipeline, layer = make_adapted_pipeline()
    prompts = prompts_of("llava", images=lambda row: row % 3)
    expected = one_by_one(pipeline, prompts)
    engine = ContinuousGeneration(pipeline, "generated_sequence")
    step = engine.loop.decoder.step
    if between:  # a text that is computed alone switches it, too
        monkeypatch.setattr(
            engine.loop.decoder, "step", lambda texts: (layer.enable_adapters(False), step(texts))
        )
    assert written_by(engine, prompts) == expected
    assert engine.loop.steps < sum(MOST)


def test_an_image_is_read_once_and_alone():
    pipeline = make_pipeline("llava")
    prompts, seen = prompts_of("llava"), []
    hook = pipeline.model.model.vision_tower.embeddings.register_forward_hook(
        lambda module, given, output: seen.append(len(output))
    )
    written_by(ContinuousGeneration(pipeline, "generated_sequence"), prompts)
    hook.remove()
    assert seen == [1] * len(prompts)


def test_where_memory_runs_out_fewer_texts_are_written_at_a_time():
    pipeline = make_pipeline("llava")
    prompts = prompts_of("llava")
    expected = one_by_one(pipeline, prompts)
    engine = ContinuousGeneration(pipeline, "generated_sequence")

    def run_out(module, given, named):
        beside = len(engine.loop.running) > 1
        if len(named["input_ids"]) > 3 or (named["input_ids"].shape[1] > 1 and beside):
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = pipeline.model.register_forward_pre_hook(run_out, with_kwargs=True)
    try:
        assert written_by(engine, prompts) == expected
    finally:
        hook.remove()


def test_an_image_that_does_not_fit_its_text_fails_alone():
    pipeline = make_pipeline("llava")
    prompts = prompts_of("llava")
    expected = one_by_one(pipeline, prompts)
    broken = {**prompts[4].load(), "pixel_values": torch.zeros(2, 3, 16, 16)}
    prompts[4] = dataclasses.replace(prompts[4], load=lambda: dict(broken))
    outputs = ContinuousGeneration(pipeline, "generated_sequence").write_all(prompts)
    assert isinstance(outputs.pop(4), ValueError)
    del expected[4]
    assert [output["generated_sequence"].tolist() for output in outputs] == expected


@pytest.mark.parametrize("breaks", ["a later input", "padding"])
def test_what_slots_do_not_hold_is_left_to_generate(breaks):
    """Mllama reads its image in each step."""
    kind = "mllama" if breaks == "a later input" else "llava"
    pipeline, prompts = make_pipeline(kind), prompts_of(kind)
    if breaks == "padding":
        padded = {**prompts[0].load()}
        padded["attention_mask"] = padded["attention_mask"].clone()
        padded["attention_mask"][0, 0] = 0
        prompts = [dataclasses.replace(prompts[0], load=lambda: dict(padded))]
    outputs = ContinuousGeneration(pipeline, "generated_sequence").write_all(prompts)
    assert {type(output) for output in outputs} == {UnsupportedPrompt}


CAPTIONS = "tests/references/models"


@lru_cache(maxsize=4)
def captions(model):
    restore_pipelines()
    return transformers.pipeline("image-to-text", model=f"{CAPTIONS}/{model}", device="cpu")


def caption_prompts(pipeline, more):
    for row, image in enumerate(pictures()):
        inputs = pipeline.preprocess(image)
        keywords = {"max_new_tokens": 4 + 2 * row, "num_beams": 1, **more}
        yield Prompt(
            inputs=dict.fromkeys(inputs), keywords=keywords, settings=repr(keywords), seed=row,
            load=partial(dict, inputs),
        )  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"do_sample": True}, {"num_beams": 3}], ids=" ".join)
def test_captions_of_an_encoder_and_a_decoder(more):
    pipeline = captions("vit_gpt2")
    prompts = list(caption_prompts(pipeline, more))
    expected = []
    for prompt in prompts:
        torch.manual_seed(prompt.seed)
        expected.append(pipeline.forward(prompt.load(), **prompt.keywords).tolist())
    for most in (2, 64):
        engine = ContinuousGeneration(pipeline, "")
        outputs = engine.write_all(prompts, most)
        assert [output.tolist() for output in outputs] == expected
        assert engine.loop.steps < sum(prompt.keywords["max_new_tokens"] for prompt in prompts)


@pytest.mark.parametrize("model", ["git", "blip_caption"])
def test_captions_of_other_models_are_left_to_generate(model):
    """GIT's image has no tokens. BLIP's `generate` calls another model's."""
    pipeline = captions(model)
    outputs = ContinuousGeneration(pipeline, "").write_all(list(caption_prompts(pipeline, {})))
    assert {type(output) for output in outputs} == {UnsupportedPrompt}


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}], ids=" ".join)
@pytest.mark.parametrize("model", ["git", "blip_caption"])
def test_captions_of_other_models_share_the_batches_of_generate(model, more):
    pipeline = captions(model)
    inputs = [pipeline.preprocess(image) for image in pictures()]
    keywords = {"max_new_tokens": 7, **more}
    expected = [pipeline.forward(dict(one), **keywords) for one in inputs]
    written = ContinuousGeneration(pipeline, "").generate(inputs, keywords)
    texts = [pipeline.postprocess(ids) for ids in written]
    assert texts == [pipeline.postprocess(ids) for ids in expected]
    assert len(set(map(str, texts))) > 3


def test_a_token_that_ends_texts_elsewhere_cuts_none_short():
    """BLIP's text model has an end token of its own, and goes on after the pipeline's."""
    pipeline = captions("blip_caption")
    inputs = [pipeline.preprocess(image) for image in pictures()]
    keywords = {"max_new_tokens": 7}
    alone = [pipeline.forward(dict(one), **keywords) for one in inputs]
    keywords["eos_token_id"] = sorted({ids[0, 4].item() for ids in alone if ids.shape[1] > 5})
    assert keywords["eos_token_id"]
    together = ContinuousGeneration(pipeline, "").generate(inputs, keywords)
    texts = [pipeline.decode(ids[0]) for ids in together]
    assert texts == [pipeline.decode(ids[0]) for ids in alone]


def test_from_the_second_prompt_on_their_memory_is_known():
    pipeline = make_pipeline("llava")
    prompts = prompts_of("llava")
    engine = ContinuousGeneration(pipeline, "generated_sequence")
    engine.loop.cache_bytes, most = 12_000, []
    hook = pipeline.model.register_forward_hook(lambda *_: most.append(len(engine.loop.running)))
    assert written_by(engine, prompts) == one_by_one(pipeline, prompts)
    hook.remove()
    assert 1 < max(most) < 5
