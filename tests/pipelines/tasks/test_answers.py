"""Every task's answers against plain `transformers.pipeline`, one row at a time.

Rows of mixed length share micro-batches of every size, with the three functions in one process
and staged: see `tests.support.row_by_row`.
"""

from __future__ import annotations

import copy
import json
import shutil
from functools import lru_cache, partial
from itertools import product

import numpy as np
import pytest
import transformers
from pipemill.pipelines.tasks.fill_mask import FILL_MASK

from tests.support import row_by_row, tiny

TEXTS = [
    *tiny.texts(16, seed=5, longest=24),
    "",
    "  ",
    "naïve café – 日本語 🙂 \x00 tab\t",
    "Paris",
]
LABELS = ["river", "bread", "cold"]


def told(model, folder, length):
    """The model, its tokenizer told to cut at that length."""
    shutil.copytree(model, folder / "told")
    file = folder / "told" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": length}))
    return str(folder / "told")


def answers(models, task, columns, parameters=None):
    """The results, the same of every budget and of the staged way."""
    return row_by_row.run(task, models[task], columns, parameters, close=1e-5)


def plain(models, task, **parameters):
    return _plain(task, models[task], json.dumps(parameters))


@lru_cache(maxsize=32)
def _plain(task, path, parameters):
    return transformers.pipeline(task, model=path, device="cpu", **json.loads(parameters))


@lru_cache(maxsize=4096)
def _answer(task, path, parameters, value, options):
    return _plain(task, path, parameters)(json.loads(value), **json.loads(options))


def truth_of(models, task, value, at_load=None, **options):
    """What `transformers.pipeline` says of one row."""
    loaded, wanted = json.dumps(at_load or {}), json.dumps(value)
    return copy.deepcopy(_answer(task, models[task], loaded, wanted, json.dumps(options)))


assert_same = partial(row_by_row.assert_same, close=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": None},
        {"function_to_apply": "sigmoid", "top_k": 2},
        {"function_to_apply": "none"},
    ],
)
def test_text_classification(models, parameters):
    batch = answers(models, "text-classification", {"text": TEXTS}, parameters)
    expected = []
    for text in TEXTS:
        ranked = truth_of(models, "text-classification", text, **parameters)
        if parameters.get("top_k", 1) == 1:
            expected.append({"label": ranked[0]["label"], "score": ranked[0]["score"]})
        else:
            ranked = ranked[0] if isinstance(ranked[0], list) else ranked
            expected.append(
                {"labels": [r["label"] for r in ranked], "scores": [r["score"] for r in ranked]}
            )
    assert_same(batch.results.to_pylist(), expected)
    assert len({str(e) for e in expected}) > 12, "the answers must differ to show a swapped one"


def test_text_classification_of_pairs(models):
    others = [None, *TEXTS[::-1][1:]]
    batch = answers(models, "text-classification", {"text": TEXTS, "text_pair": others})
    truth = plain(models, "text-classification")
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, others, strict=True)]
    assert_same(batch.results.to_pylist(), [truth(pair) for pair in pairs])


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot_with_labels_as_a_parameter(models, multi_label):
    parameters = {"candidate_labels": LABELS, "multi_label": multi_label}
    batch = answers(models, "zero-shot-classification", {"text": TEXTS}, parameters)
    for row, text in enumerate(TEXTS):
        if not text:
            assert batch.failures[row].stage == "expand"  # transformers refuses it too
            continue
        expected = truth_of(models, "zero-shot-classification", text, **parameters)
        expected.pop("sequence")
        assert_same(batch.results.slice(row, 1).to_pylist()[0], expected)


@pytest.mark.parametrize("as_text", [False, True])
def test_zero_shot_with_labels_and_template_as_columns(models, as_text):
    texts = [text for text in TEXTS if text]
    labels = [LABELS[: 1 + i % 3] + ["town"] * (i % 2) for i in range(len(texts))]
    templates = ["About {}.", "It is {} here"] * len(texts)
    columns = {
        "text": texts,
        "candidate_labels": [", ".join(own) for own in labels] if as_text else labels,
        "hypothesis_template": templates[: len(texts)],
    }
    batch = answers(models, "zero-shot-classification", columns)
    truth = plain(models, "zero-shot-classification")
    for row, text in enumerate(texts):
        expected = truth(text, labels[row], hypothesis_template=templates[row])
        expected.pop("sequence")
        assert_same(batch.results.slice(row, 1).to_pylist()[0], expected)


def test_zero_shot_cuts_the_text_and_not_the_label(models):
    long = tiny.sentence(200, 3)
    parameters = {"candidate_labels": LABELS}
    batch = answers(models, "zero-shot-classification", {"text": [long]}, parameters)
    expected = plain(models, "zero-shot-classification")(long, **parameters)
    expected.pop("sequence")
    assert_same(batch.results.to_pylist(), [expected])


def test_a_label_that_is_too_long_leaves_other_rows_cut(models, tmp_path):
    """Beside it nothing can be cut; so it must be alone."""
    here = told(models["zero-shot-classification"], tmp_path, 40)
    long, endless = tiny.sentence(60, 3), tiny.sentence(300, 4)
    labels = [["river"], [endless], ["bread", "of"]]
    columns = {"text": [long, "one", long], "candidate_labels": labels}
    models = {"zero-shot-classification": here}
    batch = answers(models, "zero-shot-classification", columns)
    assert {row: f.stage for row, f in batch.failures.items()} == {1: "expand"}
    truth = plain(models, "zero-shot-classification")
    for row, labels in ((0, ["river"]), (2, ["bread", "of"])):
        expected = truth(long, candidate_labels=labels)
        expected.pop("sequence")
        assert_same(batch.results.to_pylist()[row], expected)


def test_zero_shot_rows_without_labels_or_with_a_bad_template_die_alone(models):
    columns = {
        "text": ["one", "two", "three"],
        "candidate_labels": [["river"], [], ["bread"]],
        "hypothesis_template": ["{}", "{}", "no place"],
    }
    batch = answers(models, "zero-shot-classification", columns)
    assert {row: f.stage for row, f in batch.failures.items()} == {1: "expand", 2: "expand"}
    assert batch.results["labels"].to_pylist() == [["river"], None, None]


def _token_vectors(models, text):
    return np.array(truth_of(models, "feature-extraction", text)[0])


@pytest.mark.parametrize(
    ("pooling", "normalize"),
    product(["mean", "cls", "last", "max", "none"], [False, True]),
)
def test_feature_extraction(models, pooling, normalize):
    parameters = {"pooling": pooling, "normalize": normalize}
    batch = answers(models, "feature-extraction", {"text": TEXTS}, parameters)
    pool = {
        "mean": lambda v: v.mean(axis=0),
        "cls": lambda v: v[0],
        "last": lambda v: v[-1],
        "max": lambda v: v.max(axis=0),
        "none": lambda v: v,
    }[pooling]
    for text, got in zip(TEXTS, batch.results["embedding"].to_pylist(), strict=True):
        expected = pool(_token_vectors(models, text))
        if normalize:
            expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(np.array(got), expected, atol=1e-5)


def _windows(text, limit, stride):
    """The windows of a long text, cut by hand: contents between the special tokens."""
    words = tiny.tokenizer()
    ids = words(text, add_special_tokens=False)["input_ids"]
    room = limit - 2
    starts = [0]
    while starts[-1] + room < len(ids):
        starts.append(starts[-1] + room - stride)
    return [[words.cls_token_id, *ids[s : s + room], words.sep_token_id] for s in starts]


@pytest.mark.parametrize("stride", [0, 7])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "none"])
def test_long_texts_are_windows_pooled_by_length(models, pooling, stride):
    import torch

    texts = ["short one", tiny.sentence(150, 8), tiny.sentence(20, 9), tiny.sentence(90, 10)]
    parameters = {"pooling": pooling, "stride": stride, "max_length": 40}
    batch = answers(models, "feature-extraction", {"text": texts}, parameters)
    model = plain(models, "feature-extraction").model
    assert batch.stats["chunks"] > 10
    for text, got in zip(texts, batch.results["embedding"].to_pylist(), strict=True):
        states = [
            model(input_ids=torch.tensor([window]))[0][0].detach().numpy()
            for window in _windows(text, 40, stride)
        ]
        lengths = np.array([len(s) for s in states])
        expected = {
            "mean": lambda s=states: np.concatenate(s).mean(axis=0),
            "cls": lambda s=states, n=lengths: np.average([v[0] for v in s], axis=0, weights=n),
            "last": lambda s=states: s[-1][-1],
            "max": lambda s=states: np.concatenate(s).max(axis=0),
            "none": lambda s=states: np.concatenate(s),
        }[pooling]()
        np.testing.assert_allclose(np.array(got), expected, atol=1e-5)


def test_what_the_model_has_positions_for_is_one_window(models, tmp_path):
    """The tokenizer may be told less, for training; transformers asks it only if it is to cut."""
    here = told(models["feature-extraction"], tmp_path, 16)
    here, rows = {"feature-extraction": here}, {"text": [tiny.sentence(40, 8)]}
    got = answers(here, "feature-extraction", rows, {"pooling": "none"})
    expected = plain(here, "feature-extraction")(rows["text"][0])[0]
    assert len(expected) > 30
    assert_same(got.results["embedding"].to_pylist(), [expected])
    cut = answers(here, "feature-extraction", rows, {"pooling": "none", "truncation": True})
    assert len(cut.results["embedding"][0]) == 16


@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": 2}, {"targets": ["bread", "of"]}, {"targets": "of"}]
)
def test_fill_mask(models, parameters):
    texts = [f"{text} [MASK] of" for text in TEXTS] + ["no mask here"]
    batch = answers(models, "fill-mask", {"text": texts}, parameters)
    assert {row: f.stage for row, f in batch.failures.items()} == {len(TEXTS): "expand"}
    expected = [truth_of(models, "fill-mask", text, **parameters) for text in texts[:-1]]
    assert_same(batch.results["predictions"].to_pylist()[:-1], expected)


def test_targets_of_a_row(models):
    targets = [["bread", "of"], None, ["of"]]
    rows = {"text": [f"{text} [MASK] of" for text in TEXTS[:3]], "targets": targets}
    batch = answers(models, "fill-mask", rows, {"top_k": 2})
    expected = [
        truth_of(models, "fill-mask", text, top_k=2, **({"targets": own} if own else {}))
        for text, own in zip(rows["text"], targets, strict=True)
    ]
    assert_same(batch.results["predictions"].to_pylist(), expected)


def test_targets_of_a_row_as_csv_has_them(models):
    """An empty field is none, and a list is a text."""
    rows = {
        "text": [f"{text} [MASK] of" for text in TEXTS[:3]],
        "targets": ["", '["bread", "of"]', "of"],
    }
    batch = answers(models, "fill-mask", rows)
    expected = [
        truth_of(models, "fill-mask", text, **own)
        for text, own in zip(
            rows["text"], ({}, {"targets": ["bread", "of"]}, {"targets": "of"}), strict=True
        )
    ]
    assert_same(batch.results["predictions"].to_pylist(), expected)


def test_an_empty_list_of_targets_is_none(models):
    rows = {"text": [f"{text} [MASK] of" for text in TEXTS[:3]]}
    lists = {"targets": [["bread", "of"], [], None]}
    nulls = {"targets": [["bread", "of"], None, None]}
    got, expected = (answers(models, "fill-mask", {**rows, **more}) for more in (lists, nulls))
    assert not got.failures
    assert_same(got.results.to_pylist(), expected.results.to_pylist())


def test_an_empty_template_of_a_row_is_none(models):
    rows = {"text": TEXTS[:2], "candidate_labels": [["bread", "of"]] * 2}
    templates = {"hypothesis_template": ["", None]}
    got, expected = (
        answers(models, "zero-shot-classification", {**rows, **more}) for more in (templates, {})
    )
    assert not got.failures
    assert_same(got.results.to_pylist(), expected.results.to_pylist())


def test_a_text_longer_than_the_table_of_positions_dies_before_the_device_sees_it(models):
    """Where there is no window around all masks."""
    rows = {"text": [f"[MASK] {tiny.sentence(200, 1)} [MASK]", "one [MASK]"]}
    batch = answers(models, "fill-mask", rows, {"several_masks": True})
    assert {row: f.stage for row, f in batch.failures.items()} == {0: "expand"}
    assert "more than the model's 128" in batch.failures[0].message


def test_of_a_long_text_a_mask_is_filled_by_what_is_around_it(models):
    before, after = tiny.sentence(200, 1), tiny.sentence(170, 2)
    texts = ["a [MASK]", f"{before} [MASK] {after}", f"[MASK] {before}", f"{after} is [MASK]"]
    texts.append(f"{before} {tiny.sentence(3, 4)} [MASK] by the [MASK] {after}")
    batch = answers(models, "fill-mask", {"text": texts}, {"several_masks": True})
    assert not batch.failures
    truth, lost = plain(models, "fill-mask"), 0
    words = truth.tokenizer
    for text, found in zip(texts, batch.results["predictions"].to_pylist(), strict=True):
        part, fewer = FILL_MASK.shorten(text, truth, {}, 128)
        assert part in text
        assert part.count("[MASK]") == text.count("[MASK]")
        assert part == text or 120 < len(words(part)["input_ids"]) <= 128
        assert fewer == len(words(text)["input_ids"]) - len(words(part)["input_ids"])
        lost += fewer
        expected = truth(part)
        assert_same(found, expected if isinstance(expected[0], list) else [expected])
    assert batch.stats["lost_tokens"] == lost
    assert batch.stats["truncated_rows"] == 4
    cut = {"tokenizer_kwargs": {"truncation": True}, "several_masks": True}
    batch = answers(models, "fill-mask", {"text": texts}, cut)
    assert set(batch.failures) == {1, 3, 4}, "the mask is cut off, as the user wants it"
    expected = truth(texts[2], tokenizer_kwargs={"truncation": True})
    assert_same(batch.results["predictions"].to_pylist()[2], [expected])


def test_fill_mask_with_several_masks(models):
    texts = ["[MASK] river [MASK]", "one [MASK]"]
    batch = answers(models, "fill-mask", {"text": texts})
    assert "several_masks" in batch.failures[0].message
    assert batch.failures[0].stage == "regroup"
    both = answers(models, "fill-mask", {"text": texts}, {"several_masks": True})
    truth = plain(models, "fill-mask")
    assert_same(both.results["predictions"].to_pylist(), [truth(texts[0]), [truth(texts[1])]])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"ignore_labels": []},
        {"aggregation_strategy": "simple"},
        {"aggregation_strategy": "first"},
        {"aggregation_strategy": "average", "stride": 8},
    ],
)
def test_token_classification(models, parameters):
    texts = [*TEXTS, tiny.sentence(120, 2)]
    batch = answers(models, "token-classification", {"text": texts}, parameters)
    for text, got in zip(texts, batch.results["entities"].to_pylist(), strict=True):
        assert_same(got, truth_of(models, "token-classification", text, parameters))


def test_what_token_classification_cuts_is_counted(models):
    texts = [tiny.sentence(200, 2), "Paris", tiny.sentence(120, 2)]
    batch = answers(models, "token-classification", {"text": texts})
    words = tiny.tokenizer()
    lengths = [len(words(text)["input_ids"]) for text in texts]
    assert lengths[0] > lengths[2] > 128 > lengths[1], "two of them are longer than the model"
    assert batch.stats["truncated_rows"] == 2
    assert batch.stats["lost_tokens"] == lengths[0] + lengths[2] - 2 * 128
    stride = answers(models, "token-classification", {"text": texts}, {"stride": 8,
                     "aggregation_strategy": "simple"})  # fmt: skip
    assert stride.stats["lost_tokens"] == 0


def numbered(model, folder):
    """The model with numbers for labels."""
    shutil.copytree(model, folder / "numbered")
    file = folder / "numbered" / "config.json"
    config = json.loads(file.read_text())
    config["id2label"] = {key: int(key) for key in config["id2label"]}
    file.write_text(json.dumps(config))
    return str(folder / "numbered")


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_labels_that_are_numbers_are_text_in_the_columns(models, tmp_path, task):
    here = {task: numbered(models[task], tmp_path)}
    batch = answers(here, task, {"text": TEXTS})
    assert not batch.failures
    for text, got in zip(TEXTS, batch.results.to_pylist(), strict=True):
        expected = truth_of(here, task, text)
        if task == "text-classification":
            assert_same(got, {**expected[0], "label": str(expected[0]["label"])})
        else:
            named = [{**entity, "entity": str(entity["entity"])} for entity in expected]
            assert_same(got["entities"], named)
