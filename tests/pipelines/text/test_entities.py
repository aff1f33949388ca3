"""Entities of all tokens at once: those of transformers' `postprocess`, to the last bit."""

import warnings
from functools import partial

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipemill.pipelines.text import entities
from pipemill.pipelines.text.entities import find_entities

from tests.support import tiny

LABELS = {
    "prefixed": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-B-X", "MISC-A"],
    "plain": ["PER", "LOC", "O"],
    "numbered": ["LABEL_0", "LABEL_1"],
}


def _train(model, trainer, pre_tokenizer, decoder):
    words = tokenizers.Tokenizer(model)
    words.pre_tokenizer, words.decoder = pre_tokenizer, decoder
    words.train_from_iterator(tiny.texts(200), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<s>", model_max_length=64
    )


def _bytes():
    special = {"vocab_size": 400, "special_tokens": ["<s>"]}
    return _train(
        tokenizers.models.BPE(),
        tokenizers.trainers.BpeTrainer(
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), **special
        ),
        tokenizers.pre_tokenizers.ByteLevel(),
        tokenizers.decoders.ByteLevel(),
    )


def _pieces():
    special = {"vocab_size": 200, "special_tokens": ["<s>", "<unk>"]}
    return _train(
        tokenizers.models.Unigram(),
        tokenizers.trainers.UnigramTrainer(unk_token="<unk>", **special),
        tokenizers.pre_tokenizers.Metaspace(),
        tokenizers.decoders.Metaspace(),
    )


@pytest.fixture(scope="module", params=["words", "bytes", "pieces"])
def tokenizer(request):
    return {"words": lambda: tiny.tokenizer(64), "bytes": _bytes, "pieces": _pieces}[
        request.param
    ]()


@pytest.fixture(scope="module", params=LABELS)
def pipeline(request, tokenizer):
    names = LABELS[request.param]
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = transformers.BertForTokenClassification(config)
    return transformers.pipeline("token-classification", model=model, tokenizer=tokenizer)


def _make_outputs(pipeline, text, seed, spread=2.0, **keywords):
    """Return what `_forward` would, with random scores, of which some are equal."""
    import torch

    before, _, after = pipeline._sanitize_parameters(**keywords)
    before.setdefault("is_split_into_words", False)
    rng, outputs = np.random.default_rng(seed), []
    for inputs in pipeline.preprocess(text, **before):
        size = (1, inputs["input_ids"].shape[1], pipeline.model.config.num_labels)
        # Often one label for several neighbours, as models answer.
        logits = np.repeat(rng.normal(size=size), 3, axis=1)[:, : size[1]] * spread
        logits = (np.round(logits * 2) / 2 if seed % 3 == 0 else logits).astype(np.float32)
        outputs.append({**inputs, "logits": torch.from_numpy(logits)})
    return outputs, after


TEXTS = st.lists(
    st.sampled_from([*tiny.WORDS, "Ünï", "x-ray", "日本", "  ", "\n", "🦊", "don't", "[UNK]"]),
    max_size=30,
).map(" ".join)


STRATEGIES = ("none", "simple", "first", "average", "max")
IGNORED = (None, [], ["PER", "B-PER"])


@settings(deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    text=TEXTS,
    seed=st.integers(0, 2**20),
    ignored=st.sampled_from(IGNORED),
)
@example(strategy="none", text="the river stone", seed=0, ignored=[])
@example(strategy="first", text="", seed=0, ignored=None)
def test_they_are_those_of_transformers(pipeline, strategy, text, seed, ignored):
    outputs, after = _make_outputs(
        pipeline, text, seed, aggregation_strategy=strategy, ignore_labels=ignored
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tokenizers that know no words
        expected = pipeline.postprocess(outputs, **after)
    found = find_entities(pipeline, outputs, **after)
    assert found == expected
    assert [list(map(type, one.values())) for one in found] == [
        [type(one[name]) for name in entity] for entity, one in zip(found, expected, strict=True)
    ]


def test_most_texts_are_not_left_to_the_pipeline(pipeline, monkeypatch):
    outputs, after = _make_outputs(pipeline, tiny.sentence(20, 1), 1, ignore_labels=[])
    monkeypatch.setattr(pipeline, "postprocess", None)
    assert len(find_entities(pipeline, outputs, **after)) >= 20


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        (["river", "stone water"], {"is_split_into_words": True, "delimiter": "-"}),
        (tiny.sentence(200, 3), {"stride": 5, "aggregation_strategy": "first"}),
    ],
    ids=["words", "windows"],
)
def test_given_words_and_windows_are_the_pipelines(pipeline, text, keywords, monkeypatch):
    monkeypatch.setattr(entities, "EntityFinder", None)
    # Twice, since of given words `postprocess` changes the offsets.
    first, second = (
        _make_outputs(pipeline, text, 1, ignore_labels=[], **keywords) for _ in range(2)
    )
    expected = pipeline.postprocess(first[0], **first[1])
    assert expected
    assert find_entities(pipeline, second[0], **second[1]) == expected


def test_scores_without_an_order_are_the_pipelines(pipeline):
    outputs, after = _make_outputs(pipeline, tiny.sentence(20, 1), 1, ignore_labels=[])
    outputs[0]["logits"][0, 3, 1] = float("nan")
    found = find_entities(pipeline, outputs, **after)
    assert str(found) == str(pipeline.postprocess(outputs, **after))


def test_a_label_without_a_name_is_the_same_error(pipeline, monkeypatch):
    outputs, after = _make_outputs(pipeline, tiny.sentence(20, 1), 1)
    monkeypatch.setattr(pipeline.model.config, "id2label", {0: "O"})
    for postprocess in (pipeline.postprocess, partial(find_entities, pipeline)):
        with pytest.raises(KeyError):
            postprocess(outputs, **after)
