"""Texts that are written beside others, which come and go, are as if they were alone."""

from __future__ import annotations

import copy
import functools
import threading
from contextlib import contextmanager

import pyarrow as pa
import pytest
import torch
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.generation import decoding_loop
from pipemill.pipelines.engines.generation.continuous_generation import ContinuousGeneration
from pipemill.pipelines.engines.generation.token_choice import Sequence
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

from tests.support import tiny, tiny_generators, tiny_image_writers
from tests.support.row_by_row import run

PROMPTS = [*tiny.texts(9, seed=2, longest=20), "Anna", "red red red red"]
# Each text's length is another, and an end token comes for some.
MOST = [3 + 2 * (n % 7) for n in range(len(PROMPTS))]
SMALL = {**tiny_image_writers.TEXT, "vocab_size": 360}
KINDS = {
    "llama": transformers.LlamaConfig(**SMALL),
    "a window of 8 tokens": transformers.MistralConfig(**SMALL, sliding_window=8, head_dim=8),
    "windows in some layers": transformers.Gemma3TextConfig(
        **SMALL, sliding_window=8, head_dim=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "layers that share keys and values": transformers.Gemma4TextConfig(
        **{**SMALL, "num_hidden_layers": 4}, sliding_window=8, head_dim=8, global_head_dim=16,
        vocab_size_per_layer_input=360, hidden_size_per_layer_input=8, num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "learned positions": transformers.GPT2Config(
        vocab_size=360, n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.8,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    ),
    "positions from the mask": transformers.OPTConfig(
        vocab_size=360, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=256, init_std=0.8, bos_token_id=0,
        pad_token_id=1, eos_token_id=2,
    ),
    "distances": transformers.BloomConfig(
        vocab_size=360, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.8,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    ),
    "states in some layers": transformers.Qwen3NextConfig(
        **SMALL, head_dim=8, layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    ),
    "convolutions in some layers": transformers.Lfm2Config(
        **SMALL, layer_types=["conv", "full_attention"]
    ),
    "layers without any cache": transformers.NemotronHConfig(
        **{**SMALL, "num_hidden_layers": 3}, layers_block_type=["linear_attention", "mlp",
        "full_attention"], head_dim=8, ssm_state_size=4, mamba_num_heads=2, mamba_head_dim=16,
        n_groups=1, chunk_size=8,
    ),
    "states instead of a cache": transformers.MambaConfig(
        vocab_size=360, hidden_size=16, state_size=4, num_hidden_layers=2, initializer_range=0.8,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    ),
    "a mask that is not heard": transformers.GitConfig(
        vocab_size=360, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, initializer_range=0.8, bos_token_id=0, pad_token_id=1,
        eos_token_id=2, vision_config={"hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 8, "image_size": 32, "patch_size": 4},
    ),
}  # fmt: skip


def make_pipeline(kind):
    """Make one of a model of a kind, or of a configuration."""
    torch.manual_seed(3)
    config = KINDS[kind] if isinstance(kind, str) else kind
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return transformers.pipeline(
        "text-generation", model=model, tokenizer=tiny_generators.words(256)
    )


@pytest.fixture(scope="module")
def llama():
    return make_pipeline("llama")


def prompts_of(pipeline, more=None, texts=PROMPTS):
    return [
        Prompt(
            inputs=pipeline.preprocess(text),
            keywords=(keywords := {"max_new_tokens": most, "do_sample": False, **(more or {})}),
            settings=repr(keywords),
            seed=number,
        )
        for number, (text, most) in enumerate(zip(texts, MOST * len(texts), strict=False))
    ]


def texts_of(pipeline, outputs):
    for output in outputs:
        if isinstance(output, Exception):
            raise output
    return [pipeline.postprocess(output)[0]["generated_text"] for output in outputs]


def one_by_one(pipeline, prompts, texts=PROMPTS):
    written = []
    for text, prompt in zip(texts, prompts, strict=True):
        torch.manual_seed(prompt.seed)
        written.append(pipeline(text, **prompt.keywords)[0]["generated_text"])
    return written


LEFT_TO_GENERATE = ("states instead of a cache", "a mask that is not heard")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LEFT_TO_GENERATE])
def test_every_kind_of_decoder(kind):
    pipeline = make_pipeline(kind)
    prompts = prompts_of(pipeline)
    expected = one_by_one(pipeline, prompts)
    assert len(set(expected)) == len(PROMPTS)
    for most in (1, 3, 64):
        engine = ContinuousGeneration(pipeline, "generated_sequence")
        assert texts_of(pipeline, engine.write_all(prompts, most)) == expected
        assert engine.loop.steps < sum(MOST) or most == 1


def test_a_model_that_drops_positions_gets_them(llama, monkeypatch):
    """As EXAONE 4.5, which counts the cache's columns."""
    prepare = llama.model.prepare_inputs_for_generation

    @functools.wraps(prepare)
    def drop(*given, **named):
        return {**prepare(*given, **named), "position_ids": None}

    monkeypatch.setattr(llama.model, "prepare_inputs_for_generation", drop)
    prompts = prompts_of(llama)
    engine = ContinuousGeneration(llama, "generated_sequence")
    assert texts_of(llama, engine.write_all(prompts, 3)) == one_by_one(llama, prompts)


@pytest.mark.parametrize(
    "more",
    [
        {"do_sample": True, "top_k": 5},
        {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 4},
        {"bad_words_ids": [[300], [301, 12]], "suppress_tokens": [17, 18]},
        {"stop_strings": ["a", "e"], "min_length": 12},
        {"max_new_tokens": None, "max_length": 70},
        {"eos_token_id": list(range(50, 120))},
    ],
    ids=lambda more: " ".join(more),
)
def test_settings_count_as_for_a_prompt_alone(llama, more):
    if "stop_strings" in more:
        more = {**more, "tokenizer": llama.tokenizer}
    engine = ContinuousGeneration(llama, "generated_sequence")
    prompts = prompts_of(llama, more)
    assert all(engine.schedules(prompt.keywords) for prompt in prompts)
    got = texts_of(llama, engine.write_all(prompts, 4))
    assert got == one_by_one(llama, prompts)


@pytest.mark.parametrize(
    "kind", ["llama", "learned positions", "a window of 8 tokens", "states in some layers"]
)
def test_a_text_whose_numbers_are_nan_changes_no_other(kind):
    """As in half precision: others take its slot later, with fewer columns."""
    pipeline = make_pipeline(kind)
    nan = set(pipeline.tokenizer("Anna")["input_ids"])
    good = [text for text in PROMPTS if not nan & set(pipeline.tokenizer(text)["input_ids"])]
    texts = ["Anna " * 12, *good[:4], "Anna " * 12, *good[4:]]
    head = pipeline.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with torch.no_grad():
        pipeline.model.get_input_embeddings().weight[list(nan)] = float("nan")
    prompts = prompts_of(pipeline, texts=texts)
    expected = dict(zip(texts, one_by_one(pipeline, prompts, texts), strict=True))
    for most in (2, 3, 4):
        engine = ContinuousGeneration(pipeline, "generated_sequence")
        found = dict(zip(texts, texts_of(pipeline, engine.write_all(prompts, most)), strict=True))
        assert {text: found[text] for text in good} == {text: expected[text] for text in good}


def test_what_generate_does_otherwise_is_left_to_it(llama):
    engine = ContinuousGeneration(llama, "generated_sequence")
    for more in (
        {"num_beams": 2, "do_sample": True},
        {"num_return_sequences": 2, "do_sample": True},
        {"use_cache": False},
        {"guidance_scale": 1.5},
        {"encoder_no_repeat_ngram_size": 1},
    ):
        assert not engine.schedules({"max_new_tokens": 3, **more})


@contextmanager
def before_forward(model, do):
    """Call `do` with the token ids of each forward pass."""

    def hook(_, given, named):
        do(named["input_ids"] if "input_ids" in named else given[0])

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize(
    ("kind", "limit"),
    [("learned positions", "n_positions"), ("positions from the mask", "max_position_embeddings")],
)
def test_a_text_that_outgrows_the_models_positions_fails_alone(kind, limit, beams):
    """On a GPU a position beyond the table would cost the process, with all that it writes."""
    config = copy.deepcopy(KINDS[kind])
    setattr(config, limit, 40)
    pipeline, texts = make_pipeline(config), [*PROMPTS[1:5], *PROMPTS[6:]]
    more = {"min_new_tokens": 22, "max_new_tokens": 22, "num_beams": beams}
    prompts = prompts_of(pipeline, more, texts)
    engine = ContinuousGeneration(pipeline, "generated_sequence")
    outputs = engine.write_all(prompts)
    fits = [one.inputs["input_ids"].shape[1] + 21 <= 40 for one in prompts]
    assert len(set(fits)) == 2
    for text, prompt, output, fit in zip(texts, prompts, outputs, fits, strict=True):
        if fit:
            assert texts_of(pipeline, [output]) == one_by_one(pipeline, [prompt], [text])
        else:
            with pytest.raises(IndexError):
                one_by_one(pipeline, [prompt], [text])
            assert "the 40 tokens that the model has positions for" in str(output)
    assert engine.loop.steps == 21, "no text was written twice"


def test_a_beginning_that_all_share_is_computed_once(llama):
    texts = [f"{tiny.sentence(60, 5)} {text}" for text in PROMPTS]
    prompts = prompts_of(llama, texts=texts)
    expected = one_by_one(llama, prompts, texts)
    engine = ContinuousGeneration(llama, "generated_sequence")
    tokens = []
    with before_forward(llama.model, lambda ids: tokens.append(ids.numel())):
        assert texts_of(llama, engine.write_all(prompts)) == expected
    read = sum(prompt.inputs["input_ids"].shape[1] for prompt in prompts)
    assert sum(tokens) - sum(MOST) < read / 2


def test_callers_in_several_threads_share_the_steps(llama):
    prompts = prompts_of(llama)
    expected = one_by_one(llama, prompts)
    engine = ContinuousGeneration(llama, "generated_sequence")
    got = {}

    def write(part):
        got[part] = texts_of(llama, engine.write_all(prompts[part::3]))

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i % 3][i // 3] for i in range(len(prompts))] == expected


def test_where_memory_runs_out_fewer_texts_are_written_at_a_time(llama):
    prompts = prompts_of(llama)
    expected = one_by_one(llama, prompts)
    engine = ContinuousGeneration(llama, "generated_sequence")

    def run_out(ids):
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with before_forward(llama.model, run_out):
        assert texts_of(llama, engine.write_all(prompts)) == expected
    assert engine.loop.most == 2


def test_memory_is_planned_for_states_too():
    """They are as large for a short text as for a long one."""
    pipeline, most = make_pipeline("states in some layers"), []
    prompts = prompts_of(pipeline, texts=["Anna", "red", "the", "blue", "Mary", "sun", "on", "he"])
    engine = ContinuousGeneration(pipeline, "generated_sequence")
    engine.loop.cache_bytes = 6000
    with before_forward(pipeline.model, lambda ids: most.append(len(engine.loop.running))):
        texts_of(pipeline, engine.write_all(prompts))
    assert 1 < max(most) <= 6000 / engine.loop.slots.state_bytes


def test_a_prompt_without_room_beside_others_waits_for_it(llama):
    prompts = prompts_of(llama)
    expected = one_by_one(llama, prompts)
    engine = ContinuousGeneration(llama, "generated_sequence")

    def run_out(ids):
        if ids.shape[1] > 1 and len(engine.loop.running) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.loop.prompt_tokens = 1
    with before_forward(llama.model, run_out):
        assert texts_of(llama, engine.write_all(prompts)) == expected


def test_a_long_text_holds_back_no_other_caller(llama):
    """Also where what the others' prompts begin with must be computed first."""
    texts = [f"{tiny.sentence(40, 5)} {text}" for text in PROMPTS[:5]]
    ended, others = [], []

    def write(name, texts, most):
        more = {"max_new_tokens": most, "min_new_tokens": most}
        texts_of(llama, engine.write_all(prompts_of(llama, more, texts)))
        ended.append(name)

    def join(ids):
        if not others and engine.loop.steps == 3:
            others.append(threading.Thread(target=write, args=("short", texts, 3)))
            others[0].start()

    engine = ContinuousGeneration(llama, "generated_sequence")
    with before_forward(llama.model, join):
        write("long", PROMPTS[:1], 180)
    others[0].join()
    assert ended == ["short", "long"]


def test_a_prompt_that_fails_fails_alone(llama):
    """As a prompt that leaves no room for a new token."""
    more = {"max_new_tokens": None, "max_length": 40}
    prompts = prompts_of(llama, more)
    engine = ContinuousGeneration(llama, "generated_sequence")
    outputs = engine.write_all(prompts)
    for text, prompt, output in zip(PROMPTS, prompts, outputs, strict=True):
        if prompt.inputs["input_ids"].shape[1] < 40:
            assert texts_of(llama, [output]) == one_by_one(llama, [prompt], [text])
        else:
            assert isinstance(output, ValueError)
            assert "max_length" in str(output)
    assert {isinstance(output, ValueError) for output in outputs} == {True, False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LEFT_TO_GENERATE)
def test_a_model_that_writes_otherwise_beside_others_is_left_to_generate(kind, dtype, tmp_path):
    pipeline = make_pipeline(kind)
    pipeline.model.to(dtype)
    pipeline.save_pretrained(tmp_path)
    parameters = {"do_sample": False, "max_new_tokens": 6}
    # One, some of which none is padded, all.
    for texts in (PROMPTS[:1], ["a b", "b a"], PROMPTS):
        batch = run("text-generation", str(tmp_path), {"text": texts}, parameters)
        expected = [pipeline(text, **parameters)[0]["generated_text"] for text in texts]
        assert batch.results["generated_text"].to_pylist() == expected


def test_a_model_of_16_bits_that_hears_its_mask_writes_several_texts_at_once(tmp_path):
    pipeline = make_pipeline("llama")
    pipeline.model.to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path)
    load = LoadTask(
        task="text-generation",
        model=Model(path=str(tmp_path)),
        columns=(("text", "text"),),
        parameters='{"do_sample": false, "max_new_tokens": 6}',
    )
    stages = load()
    assert not stages.process(Batch(pa.table({"text": PROMPTS}))).failures
    assert stages.task.forwards.schedules


def test_rows_have_their_own_settings(models):
    model = models["text-generation"]
    truth = transformers.pipeline("text-generation", model=model)
    expected = [
        truth(text, do_sample=False, max_new_tokens=most)[0]["generated_text"]
        for text, most in zip(PROMPTS, MOST, strict=True)
    ]
    columns = {"text": PROMPTS, "max_new_tokens": MOST}
    batch = run("text-generation", model, columns, {"do_sample": False})
    assert batch.results["generated_text"].to_pylist() == expected
    assert batch.stats["micro_batches"] == 1


def test_what_is_sampled_does_not_depend_on_the_other_rows(models):
    parameters = {"do_sample": True, "max_new_tokens": 5}
    one = run("text-generation", models["text-generation"], {"text": PROMPTS}, parameters)
    other = run("text-generation", models["text-generation"], {"text": PROMPTS[::-1]}, parameters)
    assert one.results.to_pylist() == other.results.to_pylist()[::-1]
    assert one.stats["micro_batches"] == 1


def test_texts_that_come_hide_none_that_wait(llama, monkeypatch):
    """The thread that computes looks at them without a lock."""
    loop = ContinuousGeneration(llama, "generated_sequence").loop
    monkeypatch.setattr(loop._loop, "run", lambda step, is_done: None)
    sequences = [
        Sequence(inputs={"input_ids": torch.zeros(1, n)}, keywords={}, settings="", seed=0)
        for n in (3, 9, 5)
    ]
    loop.write(sequences[:1])
    seen, length = [], decoding_loop._count_tokens
    monkeypatch.setattr(
        decoding_loop, "_count_tokens", lambda one: seen.append(len(loop.waiting)) or length(one)
    )
    loop.write(sequences[1:])
    assert set(seen) == {1}
    assert loop.waiting == [sequences[1], sequences[2], sequences[0]]
