"""Parameters that go to the tokenizer, and models whose output is not a vector for each token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.reference.row_by_row import PlainRows
from pipemill.pipelines.tasks.feature_extraction import FeatureExtraction

from tests.pipelines.tasks.test_answers import TEXTS, plain, truth_of
from tests.support import tiny
from tests.support.table_answers import answers, assert_same

PAIR = {"text": "the mill by the river", "text_pair": "bread and water"}
SPECIAL = "a [SEP] river [MASK] mill"


@pytest.mark.parametrize(
    "options",
    [{"return_token_type_ids": False}, {"add_special_tokens": False}, {"padding_side": "left"}],
)
def test_of_text_classification(models, options):
    rows = pa.table({"body": [PAIR["text"]], "other": [PAIR["text_pair"]]})
    columns = {"text": "body", "text_pair": "other"}
    batch = answers(models, "text-classification", rows, options, columns)
    truth = plain(models, "text-classification")
    assert_same(batch.results.to_pylist(), [truth(PAIR, **options)])
    if "padding_side" not in options:
        usual = truth(PAIR)
        assert abs(usual["score"] - truth(PAIR, **options)["score"]) > 1e-3, "it has an effect"


@pytest.mark.parametrize(
    "inside",
    [
        {"truncation": True, "max_length": 9},
        {"add_special_tokens": False},
        {"split_special_tokens": True},
        {"padding": True, "return_token_type_ids": False},
    ],
)
def test_of_feature_extraction(models, inside):
    rows = pa.table({"body": [SPECIAL, tiny.sentence(30, 1)]})
    parameters = {"tokenize_kwargs": inside, "pooling": "none"}
    batch = answers(models, "feature-extraction", rows, parameters)
    for text, got in zip(rows["body"].to_pylist(), batch.results["embedding"], strict=True):
        expected = truth_of(models, "feature-extraction", text, tokenize_kwargs=inside)[0]
        np.testing.assert_allclose(got.as_py(), expected, atol=1e-5)
    assert ("truncated_rows" in batch.stats) == ("truncation" in inside)


def test_a_sample_of_them_is_held_against_transformers(models):
    inside = {"truncation": True, "max_length": 9, "add_special_tokens": False}
    load = LoadTask(
        task="feature-extraction",
        model=Model(path=models["feature-extraction"]),
        columns=(("text", "body"),),
        parameters=json.dumps({"tokenize_kwargs": inside, "pooling": "max"}),
    )
    row = pa.table({"body": [tiny.sentence(30, 1)]})
    found, by_transformers = PlainRows(load).answer(Batch(row))
    assert by_transformers
    vectors = truth_of(models, "feature-extraction", row["body"][0].as_py(), tokenize_kwargs=inside)
    np.testing.assert_allclose(found["embedding"], np.max(vectors[0], axis=0), atol=1e-5)
    assert_same(found, load().process(Batch(row)).results.to_pylist()[0])


def test_wrong_ones_inside_are_named():
    usual = {name: parameter.default for name, parameter in FeatureExtraction.parameters.items()}
    for inside, message in [
        ({"return_offsets_mapping": True}, "takes .*, not 'return_offsets_mapping'"),
        ({"stride": "a"}, "tokenize_kwargs: stride is a whole number"),
        ({"truncation": "some"}, "truncation is one of null, true, false"),
    ]:
        with pytest.raises(ValueError, match=message):
            FeatureExtraction.check({**usual, "tokenize_kwargs": inside})
    with pytest.raises(ValueError, match="max_length is given twice"):
        FeatureExtraction.check({**usual, "max_length": 9, "tokenize_kwargs": {"max_length": 8}})


@pytest.mark.parametrize("top_k", [0, -1, -9, 9])
def test_top_k_is_the_end_of_a_slice(models, top_k):
    rows = pa.table({"body": TEXTS[:3], "k": [None, top_k, 1]})
    by_parameter = answers(models, "text-classification", rows, {"top_k": top_k})
    by_column = answers(models, "text-classification", rows, None, {"text": "body", "top_k": "k"})
    for text, all_alike, own, k in zip(
        TEXTS[:3], by_parameter.results.to_pylist(), by_column.results.to_pylist(), rows["k"],
        strict=True,
    ):  # fmt: skip
        for got, wanted in [(all_alike, top_k), (own, k.as_py() if k.is_valid else 1)]:
            every = truth_of(models, "text-classification", text, top_k=None)
            assert got["labels"] == [one["label"] for one in every[:wanted]]


@pytest.mark.parametrize("strategy", ["none", "simple", "first"])
@pytest.mark.parametrize("delimiter", [None, "--"])
def test_words_are_classified_where_a_text_is_split_already(models, strategy, delimiter):
    words = [text.split(" ") for text in TEXTS if text.strip()]
    given = {"is_split_into_words": True, "aggregation_strategy": strategy}
    if delimiter:
        given["delimiter"] = delimiter
    rows = pa.table({"body": words})
    batch = answers(models, "token-classification", rows, given, None, 100)
    truth = transformers.pipeline(
        "token-classification", models["token-classification"], aggregation_strategy=strategy
    )
    for row, got in zip(words, batch.results["entities"].to_pylist(), strict=True):
        expected = truth(row, is_split_into_words=True, delimiter=delimiter)
        assert_same(got, expected[0])


def test_words_that_are_cut_are_counted(models):
    words = [tiny.WORDS[n % len(tiny.WORDS)] for n in range(200)]
    given = {"is_split_into_words": True}
    batch = answers(models, "token-classification", pa.table({"body": [words]}), given)
    whole = tiny.tokenizer()(words, is_split_into_words=True)["input_ids"]
    assert batch.stats["lost_tokens"] == len(whole) - 128 > 0


def _saved(folder: Path, config: transformers.PreTrainedConfig) -> dict[str, str]:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).eval().save_pretrained(folder)
    words = tiny.tokenizer(64)
    words.model_input_names = ["input_ids", "attention_mask"]
    words.save_pretrained(folder)
    return {"feature-extraction": str(folder)}


def _configs() -> dict[str, transformers.PreTrainedConfig]:
    tokens = len(tiny.tokenizer())
    size = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": tokens}
    return {
        "narrower": transformers.OPTConfig(
            hidden_size=64, word_embed_proj_dim=32, ffn_dim=64, max_position_embeddings=80,
            init_std=0.5, pad_token_id=0, **size,
        ),
        "pooling": transformers.DPRConfig(
            hidden_size=32, intermediate_size=37, projection_dim=16, initializer_range=0.5, **size
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["narrower", "pooling"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "none"])
def test_a_models_own_width_is_that_of_the_vectors(tmp_path, kind, pooling):
    models = _saved(tmp_path, _configs()[kind])
    texts = ["the river", "a mill and a baker", "bread"]
    load = LoadTask(
        task="feature-extraction",
        model=Model(path=models["feature-extraction"]),
        columns=(("text", "body"),),
        parameters=json.dumps({"pooling": pooling}),
    )
    got = load().process(Batch(pa.table({"body": texts}))).results["embedding"]
    truth, rules = plain(models, "feature-extraction"), {"mean": np.mean, "max": np.max}
    for text, vector in zip(texts, got.to_pylist(), strict=True):
        expected = np.array(truth(text)[0])
        assert expected.shape[-1] == {"narrower": 32, "pooling": 16}[kind]
        tokens = np.atleast_2d(expected)
        rule = rules.get(pooling)
        if rule is not None:
            expected = rule(tokens, axis=0)
        else:
            expected = tokens[0] if pooling == "cls" else tokens
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        plain_row = PlainRows(load).answer(Batch(pa.table({"body": [text]})))
        np.testing.assert_allclose(plain_row[0]["embedding"], expected, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 300, 100_000])
def test_a_model_whose_attention_minds_the_length_keeps_it(tmp_path, max_tokens):
    """BigBird: in blocks, some of them by lot; in transformers a short text turns that off."""
    words = tiny.tokenizer(128)
    config = transformers.BigBirdConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=37, block_size=4, num_random_blocks=1, max_position_embeddings=128,
        initializer_range=0.5, pad_token_id=0, num_labels=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BigBirdForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    texts = [tiny.sentence(14 + n, n) for n in range(12)]
    lengths = [len(words(text)["input_ids"]) for text in texts]
    assert 28 < min(lengths) < max(lengths) < 128, "blocks are used from 28 tokens on"
    truth = transformers.pipeline("text-classification", str(tmp_path), top_k=None)
    load = LoadTask(
        task="text-classification",
        model=Model(path=str(tmp_path)),
        columns=(("text", "body"),),
        parameters='{"top_k": null}',
        max_tokens=max_tokens,
    )
    task = load()
    task.process(Batch(pa.table({"body": ["Anna", "the river"]})))  # as in an earlier split
    batch = task.process(Batch(pa.table({"body": texts})))
    expected = [truth(text)[0] for text in texts]
    wanted = [
        {key: [one[key[:-1]] for one in row] for key in ("labels", "scores")} for row in expected
    ]
    assert_same(batch.results.to_pylist(), wanted)
    assert truth.model.bert.attention_type == "block_sparse"
