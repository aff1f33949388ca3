"""Texts longer than the model: every window against the bare model, what is cut is counted.

The windows are cut by hand here, from the tokens of the text alone.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.batch import Batch
from pipemill.pipelines.tasks.feature_extraction import FeatureExtraction
from pipemill.pipelines.tasks.text_classification import TextClassification
from pipemill.pipelines.text.windows import WindowTokenizer

from tests.pipelines.tasks.test_answers import plain
from tests.support import tiny
from tests.support.table_answers import answers, assert_same, load

LIMIT = 128  # the positions of the tests' models
WORDS = tiny.tokenizer(LIMIT)
TEXTS = ["short one", *(tiny.sentence(n, n) for n in (150, 3, 90, 40, 300, 41)), "", "river"]
PAIRS = {"text": "body", "text_pair": "other"}


def ids(text):
    return WORDS(text, add_special_tokens=False)["input_ids"]


def windows(text, limit=LIMIT, stride=0, second=None):
    """(input_ids, token_type_ids) of each window; `second` is whole in all of them."""
    first = ids(text)
    tail = [] if second is None else [*ids(second), WORDS.sep_token_id]
    room = limit - 2 - len(tail)
    starts = [0]
    while starts[-1] + room < len(first):
        starts.append(starts[-1] + room - stride)
    heads = [[WORDS.cls_token_id, *first[s : s + room], WORDS.sep_token_id] for s in starts]
    return [(head + tail, [0] * len(head) + [1] * len(tail)) for head in heads]


def scores_of(models, cut, activation):
    """Each window's scores from the bare model, shape (windows, labels)."""
    import torch

    model = plain(models, "text-classification").model
    with torch.inference_mode():
        logits = torch.cat(
            [
                model(input_ids=torch.tensor([own]), token_type_ids=torch.tensor([types])).logits
                for own, types in cut
            ]
        )
    return {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}[
        activation
    ].numpy()


def pooled(models, cut, rule="mean", activation="softmax"):
    scores = scores_of(models, cut, activation)
    if rule == "max":
        return scores.max(axis=0)
    return np.average(scores, axis=0, weights=[len(own) for own, _ in cut])


def by_label(models, row):
    names = plain(models, "text-classification").model.config.id2label
    scores = dict(zip(row["labels"], row["scores"], strict=True))
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    return [scores[names[i]] for i in range(len(names))]


@pytest.mark.parametrize("max_tokens", [1, 100, 100_000])
@pytest.mark.parametrize(
    ("rule", "activation", "stride", "max_length"),
    [
        ("mean", "softmax", 0, None),
        ("mean", "softmax", 7, 40),
        ("mean", "none", 20, 40),
        ("max", "softmax", 7, None),
        ("max", "sigmoid", 0, 40),
    ],
)
def test_long_texts_are_classified_by_windows(
    models, rule, activation, stride, max_length, max_tokens
):
    parameters = {
        "top_k": None,
        "stride": stride,
        "max_length": max_length,
        "window_pooling": rule,
        "function_to_apply": activation,
    }
    rows = pa.table({"body": TEXTS})
    batch = answers(models, "text-classification", rows, parameters, None, max_tokens)
    cuts = [windows(text, max_length or LIMIT, stride) for text in TEXTS]
    expected = [pooled(models, cut, rule, activation) for cut in cuts]
    got = [by_label(models, row) for row in batch.results.to_pylist()]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert batch.stats["chunks"] == sum(map(len, cuts)) > len(TEXTS)
    assert "truncated_rows" not in batch.stats, "nothing is lost"
    other = [pooled(models, cut, {"mean": "max", "max": "mean"}[rule], activation) for cut in cuts]
    assert not np.allclose(expected, other, atol=1e-3), "the rules must differ to show a wrong one"


def test_what_transformers_answers_whole_is_never_cut(tmp_path):
    # The tokenizer names a smaller limit than the model has, and transformers only warns.
    tiny.save(tmp_path, "ForSequenceClassification", ["a", "b", "c"], LIMIT)
    tiny.tokenizer(64).save_pretrained(tmp_path)
    models = {"text-classification": str(tmp_path)}
    texts = [tiny.sentence(n, 5) for n in (10, 40, 46)]
    assert [len(own) for ((own, _),) in map(windows, texts)][1:] == [113, LIMIT]
    batch = answers(models, "text-classification", pa.table({"body": texts}), {"stride": 5})
    assert batch.stats["chunks"] == len(texts)
    truth = plain(models, "text-classification")
    assert_same(batch.results.to_pylist(), [truth(text)[0] for text in texts])
    cut = answers(models, "text-classification", pa.table({"body": texts}), {"truncation": True})
    assert_same(cut.results.to_pylist(), [truth(text, truncation=True)[0] for text in texts])
    assert (cut.stats["truncated_rows"], cut.stats["lost_tokens"]) == (2, 113 + LIMIT - 2 * 64)


@pytest.mark.parametrize("stride", [0, 9])
def test_of_a_pair_the_first_text_is_cut_and_the_second_is_in_every_window(models, stride):
    seconds = [None, tiny.sentence(9, 1), "", tiny.sentence(4, 2), *(["a river"] * 5)]
    rows = pa.table({"body": TEXTS, "other": seconds})
    parameters = {"top_k": None, "stride": stride}
    batch = answers(models, "text-classification", rows, parameters, PAIRS)
    cuts = [
        windows(text, LIMIT, stride, second or None)
        for text, second in zip(TEXTS, seconds, strict=True)
    ]
    assert max(map(len, cuts)) > 5
    got = [by_label(models, row) for row in batch.results.to_pylist()]
    np.testing.assert_allclose(got, [pooled(models, cut) for cut in cuts], atol=1e-5)


def test_a_second_text_that_leaves_no_room_is_a_dead_letter_with_the_reason(models, capfd):
    # Room for 5 tokens of the first text, less than the stride; then for none at all.
    seconds = ["the mill", " ".join(["river"] * 2), "", tiny.sentence(200, 4)]
    while len(ids(seconds[1])) < LIMIT - 8:
        seconds[1] += " x"
    rows = pa.table({"body": [tiny.sentence(100, 1)] * 4, "other": seconds})
    batch = answers(models, "text-classification", rows, {"stride": 9}, PAIRS)
    assert {row: f.stage for row, f in batch.failures.items()} == {1: "expand", 3: "expand"}
    for row, tokens, room in ((1, 120, 5), (3, len(ids(seconds[3])), 0)):
        reason = f"the second text's {tokens} tokens leave {room} of 128 to windows of the first"
        assert reason in batch.failures[row].message
    assert "panicked" not in capfd.readouterr().err
    short = pa.table({"body": ["x"], "other": [seconds[1]]})
    fits = answers(models, "text-classification", short, {"stride": 9}, PAIRS)
    truth = plain(models, "text-classification")
    expected = truth({"text": "x", "text_pair": seconds[1]})
    assert_same(fits.results.to_pylist(), [expected])


@pytest.mark.parametrize("max_length", [None, 40])
def test_truncation_is_that_of_transformers_and_is_counted(models, max_length):
    options = {"truncation": True} | ({"max_length": max_length} if max_length else {})
    rows = pa.table({"body": TEXTS})
    batch = answers(models, "text-classification", rows, options)
    truth = plain(models, "text-classification")
    assert_same(batch.results.to_pylist(), [truth(text, **options)[0] for text in TEXTS])
    excess = [max(len(ids(text)) + 2 - (max_length or LIMIT), 0) for text in TEXTS]
    assert batch.stats["truncated_rows"] == sum(e > 0 for e in excess) > 1
    assert batch.stats["lost_tokens"] == sum(excess)
    staged = load(models, "text-classification", options, weights=False).expand(Batch(rows))
    assert Batch.from_bytes(staged.to_bytes()).stats["lost_tokens"] == sum(excess)
    vectors = answers(models, "feature-extraction", rows, {**options, "pooling": "none"})
    truth = plain(models, "feature-extraction")
    for text, got in zip(TEXTS, vectors.results["embedding"].to_pylist(), strict=True):
        np.testing.assert_allclose(got, truth(text, tokenize_kwargs=options)[0], atol=1e-5)
    assert vectors.stats["lost_tokens"] == sum(excess)


@pytest.mark.parametrize("truncation", [True, "only_first"])
def test_truncated_pairs_are_counted(models, truncation):
    seconds = [tiny.sentence(5 + i, i) for i in range(len(TEXTS))]
    rows = pa.table({"body": TEXTS, "other": seconds})
    batch = answers(models, "text-classification", rows, {"truncation": truncation}, PAIRS)
    truth = plain(models, "text-classification")
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, seconds, strict=True)]
    assert_same(batch.results.to_pylist(), [truth(p, truncation=truncation) for p in pairs])
    sizes = [len(ids(a)) + len(ids(b)) + 3 for a, b in zip(TEXTS, seconds, strict=True)]
    assert batch.stats["truncated_rows"] == sum(size > LIMIT for size in sizes)
    assert batch.stats["lost_tokens"] == sum(max(size - LIMIT, 0) for size in sizes)


def test_zero_shot_counts_a_row_once_by_what_its_longest_label_cost(models):
    labels = ["river", "bread and water of the town", "cold"]
    rows = pa.table({"body": [text for text in TEXTS if text]})
    batch = answers(models, "zero-shot-classification", rows, {"candidate_labels": labels})
    longest = max(len(ids(f"This example is {label}.")) for label in labels)
    excess = [max(len(ids(t)) + longest + 3 - LIMIT, 0) for t in rows["body"].to_pylist()]
    assert batch.stats["truncated_rows"] == sum(e > 0 for e in excess) > 1
    assert batch.stats["lost_tokens"] == sum(excess)


def test_zero_shot_reads_a_long_text_once_and_not_for_every_label(models, monkeypatch):
    labels = ["river", "bread and water of the town", "cold"]
    texts = [tiny.sentence(3000, 1), "short", " ".join(["🙂日本xyzzy"] * 900), "mill" * 5000]
    rows = pa.table({"body": texts})
    seen, usual = [], transformers.PreTrainedTokenizerBase.__call__

    def noted(self, text, *others, **keywords):
        seen.extend(map(len, [text] if isinstance(text, str) else text))
        return usual(self, text, *others, **keywords)

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "__call__", noted)
    batch = answers(models, "zero-shot-classification", rows, {"candidate_labels": labels})
    # The last is a single token: of it nothing can be cut.
    counts = [seen.count(len(text)) for text in texts]
    assert counts[0] == counts[2] == counts[3] / (1 + len(labels)) > 0
    monkeypatch.setattr("pipemill.pipelines.text.truncation._MAX_CHARACTERS_PER_TOKEN", 10**6)
    whole = answers(models, "zero-shot-classification", rows, {"candidate_labels": labels})
    assert batch.results == whole.results
    assert batch.stats["lost_tokens"] == whole.stats["lost_tokens"] > 3000
    assert batch.stats["truncated_rows"] == whole.stats["truncated_rows"] > 1


def test_many_long_texts_are_tokenized_a_few_at_a_time(monkeypatch):
    texts, seconds = ["", *TEXTS, "", *TEXTS], ["", *(["the mill"] * len(TEXTS))] * 2
    given = [(WindowTokenizer(tokenizer=WORDS, limit=50, stride=9), [texts, seconds])]
    given += [(WindowTokenizer(tokenizer=WORDS, limit=50, truncation=True), [texts])]
    given += [(WindowTokenizer(tokenizer=tiny_with("left"), limit=50), [texts])]
    together = [cutter.make_chunks(*columns) for cutter, columns in given]
    for characters in (1, 300, 10**4):
        monkeypatch.setattr("pipemill.pipelines.text.windows._CHARACTERS", characters)
        assert [cutter.make_chunks(*columns) for cutter, columns in given] == together


def test_pairs_of_texts_and_labels_are_tokenized_a_few_at_a_time(models, monkeypatch):
    texts = [tiny.sentence(words, words) for words in (5, 90, 3, 150, 8, 20, 4, 60)]
    rows, labels = pa.table({"body": texts}), ["river", "mill", "the old mill"]
    together = answers(models, "zero-shot-classification", rows, {"candidate_labels": labels})
    seen, usual = [], transformers.PreTrainedTokenizerBase.__call__

    def noted(self, text, *others, **keywords):
        seen.append(1 if isinstance(text, str) else len(text))
        return usual(self, text, *others, **keywords)

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "__call__", noted)
    monkeypatch.setattr("pipemill.pipelines.text.windows._CHARACTERS", 300)
    batch = answers(models, "zero-shot-classification", rows, {"candidate_labels": labels})
    assert max(seen) < len(texts) * len(labels) / 2
    assert batch.results == together.results
    assert batch.stats["lost_tokens"] == together.stats["lost_tokens"] > 0


def test_rows_that_die_beside_others_do_not_disturb_the_count(models):
    rows = pa.table({"body": [None, tiny.sentence(150, 1), None, "short", tiny.sentence(90, 2)]})
    batch = answers(models, "text-classification", rows, {"truncation": True})
    excess = [len(ids(rows["body"][i].as_py())) + 2 - LIMIT for i in (1, 4)]
    assert min(excess) > 0
    assert (batch.stats["truncated_rows"], batch.stats["lost_tokens"]) == (2, sum(excess))


def test_a_slow_tokenizer_truncates_but_cuts_no_windows():
    slow = transformers.CanineTokenizer()  # a token per character
    long = tiny.sentence(90, 3)
    with pytest.raises(ValueError, match=r"CanineTokenizer is not a fast tokenizer.*truncation to"):
        WindowTokenizer(tokenizer=slow, limit=50).make_chunks(["short", long])
    assert len(WindowTokenizer(tokenizer=slow, limit=50).make_chunks(["short", "x" * 48])) == 2
    cutter = WindowTokenizer(tokenizer=slow, limit=50, truncation=True)
    (short,), (cut,) = cutter.make_chunks(["short", long]).to_pylist()
    assert (short["lost"], cut["lost"]) == (0, len(long) + 2 - 50)
    assert cut["input_ids"] == slow(long, truncation=True, max_length=50)["input_ids"]
    ((pair,),) = cutter.make_chunks([long], ["x" * 9]).to_pylist()
    assert pair["lost"] == len(long) + 9 + 3 - 50


@given(
    words=st.lists(st.sampled_from([*tiny.WORDS, "日本", "🙂", "xyzzy"]), max_size=60),
    room=st.integers(1, 30),
    share=st.floats(0, 0.99),
    second=st.sampled_from([None, "river", "the old mill"]),
    side=st.sampled_from(["left", "right"]),
)
@settings(max_examples=150, deadline=None)
def test_windows_cover_every_token_and_overlap_by_the_stride(words, room, share, second, side):
    stride, text = int(room * share), " ".join(words)
    tail = 0 if second is None else len(ids(second)) + 1
    cutter = WindowTokenizer(tokenizer=tiny_with(side), limit=room + 2 + tail, stride=stride)
    chunks = cutter.make_chunks(*([text, "one"], *([] if second is None else [[second] * 2])))
    assert len(chunks) == 2
    bodies = []
    for chunk in chunks[0].as_py():
        assert chunk["size"] == len(chunk["input_ids"]) <= room + 2 + tail
        bodies.append(chunk["input_ids"][1 : len(chunk["input_ids"]) - tail - 1])
    again = bodies[0]
    for before, body in zip(bodies, bodies[1:], strict=False):
        assert stride == 0 or before[-stride:] == body[:stride]
        assert len(body) > stride, "every window adds a token"
        again = again + body[stride:]
    assert again == ids(text)
    if side == "right":
        assert bodies == [own[1 : len(own) - tail - 1] for own, _ in
                          windows(text, room + 2 + tail, stride, second)]  # fmt: skip


def tiny_with(side, made={}):  # noqa: B006
    if side not in made:
        made[side] = tiny.tokenizer(LIMIT)
        made[side].truncation_side = side
    return made[side]


@pytest.mark.parametrize("task", [TextClassification, FeatureExtraction])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stride": -1}, "stride is a whole number of at least 0, not -1"),
        ({"stride": True}, "stride is"),
        ({"stride": "7"}, "stride is"),
        ({"max_length": 0}, "max_length is a whole number of at least 1 or null, not 0"),
        ({"max_length": True}, "max_length is"),
        ({"truncation": "yes"}, "truncation is one of null, true, false, longest_first"),
        ({"truncation": 1}, "truncation is"),
        ({"truncation": []}, "truncation is"),
    ],
)
def test_wrong_values_are_named(task, wrong, message):
    defaults = {name: parameter.default for name, parameter in task.parameters.items()}
    task.check(defaults)
    with pytest.raises(ValueError, match=message):
        task.check({**defaults, **wrong})


@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        (TextClassification, {"window_pooling": "first"}),
        (TextClassification, {"top_k": "3"}),
        (TextClassification, {"top_k": True}),
        (TextClassification, {"add_special_tokens": "no"}),
        (FeatureExtraction, {"normalize": "yes"}),
    ],
)
def test_wrong_values_of_one_task_are_named(task, wrong):
    ((name, value),) = wrong.items()
    defaults = {name: parameter.default for name, parameter in task.parameters.items()}

    def check():
        task.parameters[name].validate(name, value)
        task.check({**defaults, **wrong})

    with pytest.raises(ValueError, match=name):
        check()


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
def test_windows_that_do_not_advance_are_refused_when_the_model_is_known(models, task):
    with pytest.raises(ValueError, match=r"stride \(38\) must be less than a window's 38 tokens"):
        load(models, task, {"stride": 38, "max_length": 40})
    load(models, task, {"stride": 37, "max_length": 40})
    with pytest.raises(ValueError, match=r"max_length \(2\) must be more than the special tokens"):
        load(models, task, {"max_length": 2})
