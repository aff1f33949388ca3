"""Masks of many texts at once: the answers and failures are those of the pipeline."""

from __future__ import annotations

import copy
from functools import cache

import pyarrow as pa
import pytest
import tokenizers
import transformers
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.task import Loaded
from pipemill.pipelines.adapter.pipeline_adapter import PipelineAdapter
from pipemill.pipelines.loading.make_task import make_task
from pipemill.pipelines.tasks.fill_mask import FILL_MASK, FillMask
from transformers import FillMaskPipeline

from tests.pipelines.text.test_word_table import tokenizer_of
from tests.support import tiny
from tests.support.row_by_row import assert_same

LIMIT = 60


@cache
def load(kind):
    import torch

    torch.manual_seed(0)
    words = copy.deepcopy(tokenizer_of(kind))
    words.model_max_length = LIMIT
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.5, max_position_embeddings=LIMIT,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config).eval()
    return transformers.pipeline("fill-mask", model=model, tokenizer=words)


def make(kind, columns=("text",), **parameters):
    pipeline = copy.copy(load(kind))
    pipeline.model = copy.deepcopy(pipeline.model)  # an engine changes it
    return make_task(FILL_MASK, Loaded(pipeline=pipeline, columns=columns, parameters=parameters))


@pytest.mark.parametrize("kind", ["word pieces", "bytes", "unigram"])
@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": 2, "several_masks": True}, {"targets": ["a", "the", "o"]}]
)
def test_answers_are_those_of_each_text(kind, parameters):
    task = make(kind, **parameters)
    assert isinstance(task, FillMask)
    mask = task.pipeline.tokenizer.mask_token
    texts = [f"{tiny.sentence(n, n)} {mask} {tiny.sentence(9 - n, n)}" for n in range(1, 9)]
    texts += [f"{mask}", f"an{mask}e", f"{mask} or {mask}", "none", "", f" {mask}\n日本 🦊 "]
    texts += [f"{tiny.sentence(n, n)} {mask} {tiny.sentence(n, 2)}" for n in (40, 90)]
    texts += [f"{mask} {tiny.sentence(200, 2)} {mask}"]
    rows = pa.table({"text": texts})
    single = Stages(task.adapter, {"text": "text"}, TokenBudget(300)).process(Batch(rows))
    for budget in (1, 300):
        many = Stages(task, {"text": "text"}, TokenBudget(budget)).process(Batch(rows))
        assert many.results.schema == single.results.schema
        assert_same(many.results.to_pylist(), single.results.to_pylist())
        assert many.failures == single.failures
        for count in ("chunks", "tokens", "truncated_rows", "lost_tokens"):
            assert many.stats[count] == single.stats[count]
    assert 2 < len(many.failures) < 6
    assert len({str(row) for row in many.results.to_pylist()}) > 9
    truth = load(kind)
    given = {name: value for name, value in parameters.items() if name != "several_masks"}
    expected, found = truth(texts[0], **given), many.results["predictions"][0].as_py()
    assert_same(found, [expected] if "several_masks" in parameters else expected)


def test_a_text_of_few_characters_and_many_tokens_is_shortened():
    task = make("bytes")
    text = f"{'🦊' * 40} {task.pipeline.tokenizer.mask_token} {'🦊' * 3}"
    assert len(text) < LIMIT
    for one in (task, task.adapter):
        stages = Stages(one, {"text": "text"}, TokenBudget(300))
        batch = stages.process(Batch(pa.table({"text": [text]})))
        assert not batch.failures
        assert batch.stats["truncated_rows"] == 1


@pytest.mark.parametrize("parameters", [{"targets": ["far", "a"]}, {"top_k": 9}])
def test_a_vocabulary_may_have_gaps(parameters):
    names = ["[PAD]", "[UNK]", "[MASK]", "a", "b"]
    pieces = {name: i for i, name in enumerate(names)} | {"far": 30}
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece(pieces, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    pipeline = copy.copy(load("word pieces"))
    pipeline.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    expected = pipeline("a [MASK] b", **parameters)
    pipeline.model = copy.deepcopy(pipeline.model)
    given = {"columns": ("text",), "parameters": parameters}
    task = make_task(FILL_MASK, Loaded(pipeline=pipeline, **given))
    assert isinstance(task, FillMask)
    stages = Stages(task, {"text": "text"}, TokenBudget(300))
    (found,) = stages.process(Batch(pa.table({"text": ["a [MASK] b"]}))).results.to_pylist()
    assert_same(found["predictions"], expected)


@pytest.mark.parametrize(
    "left",
    [{"top_k": 0}, {"tokenizer_kwargs": {"truncation": True}}, {"columns": ("text", "top_k")}],
)
def test_what_is_not_known_is_left_to_the_pipeline(left):
    assert isinstance(make("word pieces", **left), PipelineAdapter)


def test_a_pipeline_that_answers_otherwise_is_left_alone(monkeypatch):
    usual = FillMaskPipeline.postprocess

    def postprocess(self, *args, **keywords):
        return usual(self, *args, **keywords)[::-1]

    monkeypatch.setattr(FillMaskPipeline, "postprocess", postprocess)
    assert isinstance(make("word pieces"), PipelineAdapter)
