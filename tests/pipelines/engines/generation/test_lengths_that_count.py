"""Texts of models that compute a long text otherwise: the others beside it must not tell."""

from __future__ import annotations

import copy
import json

import pyarrow as pa
import pytest
import torch
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.restored import restore_pipelines

from tests.support import tiny, tiny_generators, tiny_image_writers

USUAL = 32  # tokens of a text whose positions are not scaled
SMALL = {**tiny_image_writers.TEXT, "vocab_size": 360, "hidden_size": 32}
ROPE = {"rope_theta": 1e4, "original_max_position_embeddings": USUAL, "partial_rotary_factor": 1.0}
LONG = {**ROPE, "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0, 9.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
KINDS = {
    "Phi-3": transformers.Phi3Config(
        **SMALL,
        original_max_position_embeddings=USUAL,
        rope_parameters=LONG,
    ),
    "dynamic": transformers.LlamaConfig(
        **{**SMALL, "max_position_embeddings": USUAL}, rope_parameters=DYNAMIC
    ),
    "blocks": transformers.BigBirdPegasusConfig(
        vocab_size=360, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, block_size=4,
        num_random_blocks=1, max_position_embeddings=256, init_std=0.8, bos_token_id=0,
        pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    ),
}  # fmt: skip
SHORT = [tiny.sentence(2 + i % 3, i) for i in range(6)]
LENGTHS = [3, 40, 5, 55, 2, 6, 20, 3]
# Two that are long, if that does not change what follows, and one that becomes long.
SEVERAL = [3, 40, 5, 55, 4, 9, 6, 13]


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_changes_none_beside_it(kind, beams, tmp_path):
    restore_pipelines()
    task = "text2text-generation" if kind == "blocks" else "text-generation"
    torch.manual_seed(3)
    auto = (
        transformers.AutoModelForSeq2SeqLM
        if kind == "blocks"
        else transformers.AutoModelForCausalLM
    )
    model = auto.from_config(KINDS[kind]).eval()
    model.save_pretrained(tmp_path)
    tokens = tiny_generators.words(10**6)
    tokens.save_pretrained(tmp_path)
    lengths = LENGTHS if kind == "dynamic" else SEVERAL
    mixed = [tiny.sentence(length, 50 + i) for i, length in enumerate(lengths)]

    parameters = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
    load = LoadTask(
        task=task,
        model=Model(path=str(tmp_path)),
        columns=(("text", "text"),),
        parameters=json.dumps(parameters),
    )
    stages = load()
    for texts in (SHORT, mixed):  # the first try sees short texts alone
        batch = stages.process(Batch(pa.table({"text": texts})))
        assert not batch.failures
        usual = [
            transformers.pipeline(task, model=copy.deepcopy(model), tokenizer=tokens)(
                text, **parameters
            )
            for text in texts
        ]
        assert batch.results["generated_text"].to_pylist() == [
            one[0]["generated_text"] for one in usual
        ]
    assert not stages.task.forwards.scheduled._differs
