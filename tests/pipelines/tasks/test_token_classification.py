"""Entities of many texts at once: chunks, entities and failures are those of the pipeline."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.task import Loaded
from pipemill.pipelines.adapter.pipeline_adapter import PipelineAdapter
from pipemill.pipelines.engines.encoder import Encoder
from pipemill.pipelines.loading.make_task import make_task
from pipemill.pipelines.tasks import token_classification
from pipemill.pipelines.tasks.token_classification import (
    TOKEN_CLASSIFICATION,
    TokenClassification,
)
from pipemill.pipelines.text import long_texts
from pipemill.pipelines.text.entities import EntityFinder
from tokenizers.processors import ByteLevel

from tests.pipelines.text.test_word_table import PIECES, TOKENIZERS, byte_level, tokenizer_of
from tests.support import row_by_row, tiny

# Of the pipeline: tokenizers that know no words, and scores that are no numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Tokenizer does not", "ignore:Mean of empty slice")

LIMIT = 40
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC-A"]
TEXTS = [*tiny.texts(9, seed=3, longest=30), "", " \n", "[SEP] Ünï", "日本\t🦊", "don't  x-ray"]
TEXTS += [tiny.sentence(n, n) for n in (38, 39, 70)]


def load(words, names=LABELS, **shape):
    """A pipeline whose labels are often those of neighbours, as a model answers."""
    import torch

    torch.manual_seed(0)
    words.model_max_length = LIMIT
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.5, id2label=dict(enumerate(names)), **shape,
    )  # fmt: skip
    model = transformers.BertForTokenClassification(config).eval()
    return transformers.pipeline("token-classification", model=model, tokenizer=words)


@pytest.fixture(scope="module", params=TOKENIZERS)
def pipeline(request):
    return load(tokenizer_of(request.param))


def make(pipeline, budget=300, **parameters):
    pipeline = copy.copy(pipeline)
    pipeline.model = copy.deepcopy(pipeline.model)  # an engine changes it
    loaded = Loaded(pipeline=pipeline, columns=("text",), parameters=parameters)
    task = make_task(TOKEN_CLASSIFICATION, loaded)
    return Stages(task, {"text": "text"}, TokenBudget(budget))


def read_entities(results):
    return [row["entities"] for row in results.to_pylist()]


def as_floats(entities):
    return [{**entity, "score": float(entity["score"])} for entity in entities]


def draw_logits(ids, seed):
    """Random logits of a text's tokens, of which some are equal, and a few no numbers."""
    rng = np.random.default_rng([seed, *ids])
    logits = np.repeat(rng.normal(size=(len(ids), len(LABELS))), 3, axis=0)[: len(ids)]
    logits = np.round(logits * 2) if seed % 3 == 0 else logits
    logits[rng.random(len(ids)) < 0.002] = np.nan
    return logits.astype(np.float32)


@given(
    strategy=st.sampled_from(["none", "simple", "first", "average", "max"]),
    seed=st.integers(0, 2**20),
    texts=st.lists(st.lists(st.sampled_from(PIECES), max_size=9), max_size=7),
)
@settings(max_examples=60, deadline=None)
def test_entities_are_the_pipelines_to_the_last_bit(pipeline, strategy, seed, texts):
    import torch

    given = {"aggregation_strategy": strategy, "ignore_labels": ["O", "LOC"]}
    before, _, after = pipeline._sanitize_parameters(**given)
    stages = make(pipeline, **given)
    assert isinstance(stages.task, TokenClassification)
    texts = [*TEXTS, *map("".join, texts), *map(" ".join, texts)]

    def draw(encoder, columns, lengths):
        several = np.split(columns["input_ids"], np.cumsum(lengths)[:-1])
        logits = [draw_logits(ids.tolist(), seed) for ids in several]
        return torch.from_numpy(np.concatenate(logits))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "run", draw)
        batch = stages.process(Batch(pa.table({"text": texts})))
    assert not batch.failures
    for text, found in zip(texts, read_entities(batch.results), strict=True):
        (inputs,) = pipeline.preprocess(text, **before)
        logits = draw_logits(inputs["input_ids"][0].long().tolist(), seed)
        output = {**inputs, "logits": torch.from_numpy(logits)[None]}
        expected = pipeline.postprocess([output], **after)
        assert str(found) == str(as_floats(expected)), repr(text)


def process_both_ways(pipeline, texts, **parameters):
    """The batch, and that of one pipeline call for each row."""
    stages, rows = make(pipeline, **parameters), pa.table({"text": texts})
    one_by_one = replace(stages, task=stages.task.adapter)
    return stages.process(Batch(rows)), one_by_one.process(Batch(rows))


def assert_same(found, expected):
    """Equal, but for what packing rounds."""
    assert found.schema == expected.schema
    row_by_row.assert_same(found.to_pylist(), expected.to_pylist())
    assert any(row["entities"] for row in expected.to_pylist())


def leave_out_times(stats):
    return {name: n for name, n in stats.items() if "seconds" not in name and "chunks" not in name}


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_are_cut_as_the_pipeline_cuts_them(pipeline, side, monkeypatch):
    monkeypatch.setattr(long_texts, "LONG", 2000)
    monkeypatch.setattr(long_texts, "PIECE", 512)
    monkeypatch.setattr(pipeline.tokenizer, "truncation_side", side)
    texts = [*TEXTS[:9], *(tiny.sentence(n, n) for n in (200, 41, 2000, 33))]
    many, single = process_both_ways(pipeline, texts)
    assert_same(many.results, single.results)
    assert not many.failures
    assert many.stats["truncated_rows"] > 2
    assert leave_out_times(many.stats) == leave_out_times(single.stats)


def test_texts_beyond_the_models_positions_are_dead_letters():
    pipeline = load(tokenizer_of("bytes"), max_position_embeddings=LIMIT)
    pipeline.tokenizer.model_max_length = 10**30
    try:
        texts = [tiny.sentence(n, n) for n in (3, 90, 4, 5, 80, 6)]
        many, single = process_both_ways(pipeline, texts)
    finally:
        pipeline.tokenizer.model_max_length = LIMIT
    assert sorted(many.failures) == [1, 4]
    assert many.failures == single.failures
    assert "tokens are more than the model's 40: cut or shorten" in many.failures[1].message
    assert_same(many.results, single.results)


def test_scores_of_few_texts_are_copied_at_a_time(pipeline, monkeypatch):
    usual, seen = EntityFinder.find, []

    def find(self, tokens, scores):
        seen.append(scores.size)
        return usual(self, tokens, scores)

    monkeypatch.setattr(EntityFinder, "find", find)
    monkeypatch.setattr(token_classification, "_MOST_SCORES", 600)
    texts = [tiny.sentence(1 + n % 30, n) for n in range(90)]
    many, single = process_both_ways(pipeline, texts)
    assert_same(many.results, single.results)
    assert max(seen) <= 600 + LIMIT * len(LABELS)
    assert not many.failures


def test_a_text_without_tokens_fails_alone():
    words = byte_level()
    words.backend_tokenizer.post_processor = ByteLevel()
    pipeline = load(words)
    batch = make(pipeline, ignore_labels=[]).process(Batch(pa.table({"text": ["a b", "", "c"]})))
    assert list(batch.failures) == [1]
    assert "has no character that the model's tokenizer knows" in batch.failures[1].message
    assert all(read_entities(batch.results)[::2])


@pytest.mark.parametrize("names", [[0, 1, 2], ["O", "PER", "LOC"]])
def test_labels_may_be_numbers(names):
    pipeline = load(tokenizer_of("bytes"), names)
    many, single = process_both_ways(pipeline, TEXTS[:9], ignore_labels=[])
    assert_same(many.results, single.results)
    found = {entity["entity"] for row in read_entities(many.results) for entity in row}
    assert found <= set(map(str, names))


def test_a_label_without_a_name_fails_the_rows_that_have_it(monkeypatch):
    pipeline = load(tokenizer_of("bytes"))
    some = {label: name for label, name in enumerate(LABELS) if label}
    monkeypatch.setattr(pipeline.model.config, "id2label", some)
    many, single = process_both_ways(pipeline, TEXTS)
    assert many.failures == single.failures
    assert many.failures
    assert_same(many.results, single.results)


def test_the_pipeline_answers_all_if_the_first_answers_are_others(pipeline, monkeypatch):
    stages, rows = make(pipeline), pa.table({"text": TEXTS})
    expected = stages.process(Batch(rows)).results
    assert stages.task.adapter.forwards.trusts_postprocess
    usual = EntityFinder.find

    def find(self, tokens, scores):
        assert not len(tokens.ids), "its answers are not right"
        return usual(self, tokens, scores)

    monkeypatch.setattr(EntityFinder, "find", find)
    assert make(pipeline).process(Batch(rows)).failures
    stages = make(pipeline)
    stages.task.adapter.forwards.own_postprocess = lambda *_, **keywords: []
    assert_same(stages.process(Batch(rows)).results, expected)


class _Own(transformers.TokenClassificationPipeline):
    pass


class _OwnTokenizer(transformers.PreTrainedTokenizerFast):
    def _encode_plus(self, text, *args, **kwargs):
        return super()._encode_plus(text, *args, **kwargs)


@pytest.mark.parametrize(
    ("parts", "parameters"),
    [
        ({}, {"stride": 3, "aggregation_strategy": "simple"}),
        ({}, {"is_split_into_words": True}),
        ({"pipeline_class": _Own}, {}),
        ({"tokenizer": lambda words: _OwnTokenizer(tokenizer_object=words.backend_tokenizer)}, {}),
    ],
    ids=["windows", "words", "own pipeline", "own tokenizer"],
)
def test_what_is_not_known_is_left_to_the_pipeline(parts, parameters):
    words, model = tokenizer_of("bytes"), load(tokenizer_of("bytes")).model
    given = {"tokenizer": words, **parts}
    if "tokenizer" in parts:
        given["tokenizer"] = parts["tokenizer"](words)
    pipeline = transformers.pipeline("token-classification", model=model, **given)
    assert isinstance(make(pipeline, **parameters).task, PipelineAdapter)
