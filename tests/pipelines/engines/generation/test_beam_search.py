"""Texts that beams find beside other texts are those that a prompt gets alone."""

from __future__ import annotations

import pytest
import torch
import transformers
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.generation.continuous_generation import ContinuousGeneration
from pipemill.pipelines.engines.generation.slot_decoder import CACHE

import pipemill
from tests.support import tiny, tiny_generators
from tests.support.row_by_row import run

PROMPTS = [*tiny.texts(9, seed=2, longest=20), "Anna", "red red red red"]
MOST = [3 + 2 * (n % 7) for n in range(len(PROMPTS))]
TOKENS = {"vocab_size": 360, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
LAYERS = {
    "d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "max_position_embeddings": 128, "init_std": 0.8, "decoder_start_token_id": 1, **TOKENS,
}  # fmt: skip
GEMMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16, "initializer_range": 0.8,
}  # fmt: skip
KINDS = {
    "t5": transformers.T5Config(
        d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=1, **TOKENS
    ),
    "bart": transformers.BartConfig(**LAYERS, forced_eos_token_id=2),
    "marian": transformers.MarianConfig(**LAYERS),
    "mbart": transformers.MBartConfig(**LAYERS, forced_eos_token_id=2),
    "pegasus": transformers.PegasusConfig(**LAYERS),
    "positions from the tokens": transformers.M2M100Config(**LAYERS),
    "led": transformers.LEDConfig(
        attention_window=[8, 8], max_encoder_position_embeddings=128,
        max_decoder_position_embeddings=128, **LAYERS,
    ),
    "prophetnet": transformers.ProphetNetConfig(
        hidden_size=16, encoder_ffn_dim=24, decoder_ffn_dim=24, num_encoder_layers=2,
        num_decoder_layers=2, num_encoder_attention_heads=2, num_decoder_attention_heads=2,
        max_position_embeddings=128, init_std=0.8, num_buckets=8, relative_max_distance=32,
        decoder_start_token_id=1, **{**TOKENS, "bos_token_id": 1, "pad_token_id": 0},
    ),
    "t5gemma": transformers.T5GemmaConfig(
        encoder={**GEMMA, **TOKENS}, decoder={**GEMMA, **TOKENS, "cross_attention_hidden_size": 16},
        decoder_start_token_id=1, initializer_range=0.8, **TOKENS,
    ),
    "llama": transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.8, **TOKENS,
    ),
    "states in some layers": transformers.JambaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=4,
        num_experts=2, initializer_range=0.8, **TOKENS,
    ),
    "gpt2": transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.8, **TOKENS
    ),
}  # fmt: skip
# Where positions are counted from the cache's first column, all texts begin together.
BEGIN_TOGETHER = ("led", "prophetnet", "t5gemma")
SEARCHES = [
    {},
    {"num_beams": 2, "num_return_sequences": 2, "length_penalty": 2.0},
    {"early_stopping": True, "eos_token_id": [2, *range(20, 90)]},
    {"early_stopping": True, "length_penalty": -0.7, "eos_token_id": [2, 40, 41, 42, 43]},
    {"early_stopping": "never", "length_penalty": 2.5, "eos_token_id": [2, *range(20, 90)]},
    {"early_stopping": "never", "max_new_tokens": 40, "eos_token_id": [2, *range(20, 90)]},
    {"early_stopping": False, "length_penalty": 0.0, "eos_token_id": [2, *range(20, 60)]},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "renormalize_logits": True},
    {"min_new_tokens": 4, "eos_token_id": [2, *range(20, 200)]},
    {"bad_words_ids": [[300], [301, 12]], "suppress_tokens": [17, 18]},
    {"forced_bos_token_id": 77, "forced_eos_token_id": 2, "num_return_sequences": 3},
    {"stop_strings": ["a", "e"], "num_return_sequences": 3},
]


def make_pipeline(kind):
    pipemill.restore_pipelines()
    torch.manual_seed(4)
    config = KINDS[kind]
    if config.is_encoder_decoder:
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
        for weights in model.parameters():
            if kind == "t5" and weights.dim() == 2:
                torch.nn.init.normal_(weights, std=0.6)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    task = "text2text-generation" if config.is_encoder_decoder else "text-generation"
    words = tiny_generators.words(128)
    return transformers.pipeline(task, model=model.eval(), tokenizer=words)


def make_engine(pipeline):
    is_decoder = pipeline.task == "text-generation"
    return ContinuousGeneration(pipeline, "generated_sequence" if is_decoder else "output_ids")


@pytest.fixture(scope="module")
def marian():
    return make_pipeline("marian")


def prompts_of(pipeline, more=None):
    usual = {"num_beams": 3, "do_sample": False, "no_repeat_ngram_size": 3, **(more or {})}
    if "stop_strings" in usual:
        usual["tokenizer"] = pipeline.tokenizer
    return [
        Prompt(
            inputs=pipeline.preprocess(text),
            keywords={"max_new_tokens": most, **usual},
            settings=repr((most, {**usual, "tokenizer": None})),
            seed=0,
        )
        for text, most in zip(PROMPTS, MOST, strict=True)
    ]


def texts_of(pipeline, outputs):
    for output in outputs:
        if isinstance(output, Exception):
            raise output
    return [[t["generated_text"] for t in pipeline.postprocess(output)] for output in outputs]


def one_by_one(pipeline, prompts):
    written = (pipeline(text, **p.keywords) for text, p in zip(PROMPTS, prompts, strict=True))
    return [[text["generated_text"] for text in texts] for texts in written]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind):
    pipeline = make_pipeline(kind)
    prompts = prompts_of(pipeline)
    expected = one_by_one(pipeline, prompts)
    assert len({str(one) for one in expected}) > 8
    greedy = one_by_one(pipeline, prompts_of(pipeline, {"num_beams": 1}))
    assert greedy != expected
    for most in (1, 3, 64):
        engine = make_engine(pipeline)
        assert all(engine.schedules(prompt.keywords) for prompt in prompts)
        assert texts_of(pipeline, engine.write_all(prompts, most)) == expected
        assert engine.loop.steps < sum(MOST) or most == 1
    assert engine.loop.decoder.joins_late == (kind not in BEGIN_TOGETHER)


@pytest.mark.parametrize("kind", ["marian", "gpt2"])  # with an encoder, and without
@pytest.mark.parametrize("more", SEARCHES, ids=lambda more: " ".join(more))
def test_settings_count_as_for_a_prompt_alone(kind, more):
    pipeline = make_pipeline(kind)
    prompts = prompts_of(pipeline, more)
    engine = make_engine(pipeline)
    assert all(engine.schedules(prompt.keywords) for prompt in prompts)
    assert texts_of(pipeline, engine.write_all(prompts, 4)) == one_by_one(pipeline, prompts)


def test_a_text_ends_where_another_one_begins(marian):
    """Texts of one, two and three beams; only those with equally many run at once."""
    prompts = [
        one
        for several in zip(*(prompts_of(marian, {"num_beams": n}) for n in (1, 2, 3)), strict=True)
        for one in several
    ]
    engine = make_engine(marian)
    outputs = engine.write_all(prompts, 4)
    for beams in (1, 2, 3):
        expected = one_by_one(marian, prompts[beams - 1 :: 3])
        assert texts_of(marian, outputs[beams - 1 :: 3]) == expected


@pytest.mark.parametrize("kind", ["t5", "bart", "llama"])
def test_where_memory_runs_out_fewer_texts_are_written_at_a_time(kind):
    pipeline = make_pipeline(kind)
    prompts = prompts_of(pipeline)
    expected = one_by_one(pipeline, prompts)
    engine = make_engine(pipeline)
    seen = []

    def run_out(module, given, output):
        seen.append(len(output))
        if len(seen) % 5 == 0 and len(output) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = pipeline.model.get_output_embeddings().register_forward_hook(run_out)
    try:
        assert texts_of(pipeline, engine.write_all(prompts)) == expected
    finally:
        handle.remove()
    assert engine.loop.most < 3 * len(PROMPTS)
    assert seen[-1] <= 6


def test_beams_share_what_the_encoder_read(marian):
    engine, seen = make_engine(marian), []

    def note(module, given, named, output):
        cache = named[CACHE].cross_attention_cache
        seen.append((len(cache.layers[0].keys), len(output[0])))

    layer = marian.model.get_decoder().layers[0].encoder_attn
    handle = layer.register_forward_hook(note, with_kwargs=True)
    try:
        engine.write_all(prompts_of(marian))
    finally:
        handle.remove()
    # Keys and values of so many texts, for so many tokens.
    assert max(seen) == (len(PROMPTS), 3 * len(PROMPTS))


def test_what_beams_draw_by_chance_is_left_to_generate(marian):
    engine = make_engine(marian)
    for more in ({"do_sample": True}, {"num_beam_groups": 3}, {"num_return_sequences": 4}):
        assert not engine.schedules({"max_new_tokens": 3, "num_beams": 3, **more})


@pytest.mark.parametrize(
    ("task", "kind"),
    [("summarization", "t5"), ("translation", "marian"), ("text2text-generation", "bart")],
)
def test_tasks_search_with_beams_where_they_usually_do(task, kind, tmp_path):
    make_pipeline(kind).save_pretrained(tmp_path)
    truth = transformers.pipeline(task, model=str(tmp_path))
    column = {"summarization": "summary", "translation": "translation"}.get(task, "generated")
    parameters = {"max_new_tokens": 12, "no_repeat_ngram_size": 2}
    expected = [truth(text, **parameters)[0][f"{column}_text"] for text in PROMPTS]
    batch = run(task, str(tmp_path), {"text": PROMPTS}, parameters)
    assert batch.results[f"{column}_text"].to_pylist() == expected
    assert len(set(expected)) > 8
    assert batch.stats["micro_batches"] == 1
