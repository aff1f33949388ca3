"""Parameters that need the model: said once when it is loaded; and a row's own, said by the row."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from pipemill.pipelines.adapter.parameters.parameter_trial import find_keywords
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.registry import find_task
from pipemill.pipelines.text.candidate_labels import parse_labels

from tests.support import tiny
from tests.support.row_by_row import run

ASR = "automatic-speech-recognition"
LONG = tiny.sentence(60, 3)


def load(models, task, parameters, model=None):
    return LoadTask(
        task=task, model=Model(path=models[model or task]), columns=(),
        parameters=json.dumps(parameters),
    )()  # fmt: skip


WRONG = [
    ("fill-mask", {"top_k": 10**6}, r"top_k \(1000000\) must be at most the model's \d+ tokens"),
    ("fill-mask", {"tokenizer_kwargs": {"return_tensors": "np"}}, "tokenizer_kwargs"),
    ("text-classification", {"truncation": "only_second"}, "there is no second text"),
    (
        "fill-mask",
        {"tokenizer_kwargs": {"max_lenght": 9}},
        "tokenizer_kwargs: .* knows no 'max_lenght'; did you mean 'max_length'",
    ),
    ("text-generation", {"tokenizer_encode_kwargs": {"thinks": 1}}, "no 'thinks'; leave it out"),
    ("token-classification", {"stride": 126}, r"stride \(126\).* the 126 tokens of a window"),
    (
        "token-classification",
        {"stride": 3, "aggregation_strategy": "none"},
        "can't work with .*stride: 3.*ValueError",
    ),
    (ASR, {"return_timestamps": True}, "return_timestamps: True.*Set `return_timestamps='char'`"),
    (ASR, {"return_language": True}, "return_language: True.*Only Whisper"),
    (ASR, {"generate_kwargs": {"language": "en"}}, "generate_kwargs is for models that generate"),
    (ASR, {"max_new_tokens": 9, "language": "en"}, "max_new_tokens, language is for models"),
    (ASR, {"decoder_kwargs": {"beam_width": 9}}, "decoder_kwargs is for models with a language"),
    ("whisper", {"language": "klingon"}, "^language must be one of de, en, not 'klingon'"),
    (ASR, {"chunk_length_s": 0.0001}, r"chunk_length_s \(0.0001\).* steps of"),
    ("text-generation", {"generate_kwargs": {"max_new_token": 1}}, "max_new_token"),
    ("text-generation", {"forced_bos_token_id": 10**6}, "forced_bos_token_id"),
    ("text-generation", {"temperature": 0.0}, "temperature: 0.0.*strictly positive"),
    ("text-generation", {"tokenizer_encode_kwargs": {"return_tensors": "np"}}, "tokenizer_enc"),
    ("image-text-to-text", {"generate_kwargs": {"beams": 3}}, "does not know beams"),
    (
        "document-question-answering",
        {"max_question_len": 9},
        "can't work with max_question_len: 9 .*unexpected keyword argument",
    ),
    ("text-to-audio", {"generate_kwargs": {"num_beams": 3}}, "generate_kwargs is for models that"),
    ("whisper", {"return_timestamps": "char"}, "return_timestamps: 'char'.*Whisper cannot"),
    ("whisper", {"generate_kwargs": {"beams": 3}}, "does not know beams"),
    (
        "image-feature-extraction",
        {"image_processor_kwargs": {"size": {"height": 9, "width": 9}}},
        "can't work with image_processor_kwargs.*Input image size",
    ),
    # Of tasks that write about media, too: they would make every row a dead letter.
    *(
        (task, {"generate_kwargs": {"bad_words_ids": [[10**6]]}}, "can't work with .*bad_words_ids")
        for task in ("whisper", "image-to-text", "image-text-to-text", "any-to-any")
    ),
]


@pytest.mark.parametrize(("task", "parameters", "message"), WRONG)
def test_what_the_model_can_not_do_is_said_when_it_is_loaded(models, task, parameters, message):
    name = ASR if task == "whisper" else task
    with pytest.raises(ValueError, match=message):
        load(models, name, parameters, task)


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("fill-mask", {"top_k": 10**6, "targets": ["bread"]}),
        ("fill-mask", {"tokenizer_kwargs": {"truncation": True, "max_length": 9}}),
        ("token-classification", {"stride": 125, "aggregation_strategy": "simple"}),
        ("token-classification", {"is_split_into_words": True}),
        ("text-generation", {"temperature": 2, "repetition_penalty": 2, "num_beams": 2}),
        ("text-generation", {"stop_sequence": ["a", "b"], "min_new_tokens": 4}),
        (ASR, {"chunk_length_s": 1, "stride_length_s": [0.2, 0.1], "return_timestamps": "char"}),
        ("whisper", {"return_timestamps": True, "generate_kwargs": {"num_beams": 2}}),
        ("whisper", {"generate_kwargs": {"temperature": [0, 0.4], "prompt_ids": [5, 6]}}),
        ("whisper", {"chunk_length_s": 5, "generate_kwargs": {"language": "en"}}),
        ("whisper", {"language": "de", "task": "translate", "prompt_ids": [5, 6]}),
        ("text-generation", {"token_healing": True}),
        ("text-generation", {"tokenizer_encode_kwargs": {"split_special_tokens": True}}),
        ("image-to-text", {"generate_kwargs": {"min_length": 9, "num_beams": 2}}),
        ("image-text-to-text", {"max_new_tokens": 3, "generate_kwargs": {"temperature": 0.5}}),
        ("any-to-any", {"generate_kwargs": {"min_new_tokens": 3}}),
        ("image-feature-extraction", {"image_processor_kwargs": {"do_normalize": False}}),
    ],
)
def test_what_it_can_do_is_not_refused(models, task, parameters):
    """Whole numbers too, where `generate` wants a float: transformers refuses those."""
    name = ASR if task == "whisper" else task
    known = find_task(name).parameters
    given = {name: known[name].validate(name, v) for name, v in parameters.items()}
    load(models, name, given, task)


def test_values_of_a_row_that_can_not_be_right_name_the_column_and_the_way_out(models):
    counts = [2, 0, -1, 10**6, 2.5, None, float("nan")]
    batch = run("fill-mask", models["fill-mask"], {"text": ["[MASK] of"] * 7, "top_k": counts})
    assert set(batch.failures) == {2, 3, 4, 6}
    for row, wrong in ((2, "not -1"), (3, "(1000000)"), (4, "not 2.5"), (6, "not nan")):
        failure = batch.failures[row]
        assert failure.stage == "expand"
        assert failure.message.startswith("top_k ")
        assert wrong in failure.message
        assert "input.columns: {top_k: null}" in failure.message
    lengths = [
        len(found) for found in batch.results["predictions"].to_pylist() if found is not None
    ]
    assert lengths == [2, 0, 5]


def test_so_do_those_of_tasks_with_windows(models):
    task = "text-classification"
    batch = run(task, models[task], {"text": [LONG] * 3, "top_k": [1, 1.5, 2]})
    assert set(batch.failures) == {1}
    assert "top_k is a whole number, not 1.5" in batch.failures[1].message
    assert "input.columns: {top_k: null}" in batch.failures[1].message


def test_nulls_among_labels_are_none_of_them(models):
    labels = [["river", None, "bread"], [None], None, ["river", "bread"], []]
    task = "zero-shot-classification"
    batch = run(task, models[task], {"text": ["a"] * 5, "candidate_labels": labels})
    results = batch.results.to_pylist()
    assert set(batch.failures) == {1, 2, 4}
    assert "candidate_labels" in batch.failures[1].message
    assert results[0]["labels"] == results[3]["labels"]
    truth = transformers.pipeline(task, models[task], device="cpu")
    expected = truth("a", candidate_labels=["river", "bread"])
    assert results[0]["labels"] == expected["labels"]
    given = run(task, models[task], {"text": ["a"]}, {"candidate_labels": ["river", None, "bread"]})
    assert given.results["labels"].to_pylist() == [expected["labels"]]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a, b,,c ", ["a", "b", "c"]),
        ('["a", "b, c", null]', ["a", "b, c"]),
        ("['a', \"it's, c\"] ", ["a", "it's, c"]),
        ("[a], [b]", ["[a]", "[b]"]),
        ("[1, 2]", ["[1", "2]"]),
    ],
)
def test_labels_in_a_text(text, labels):
    assert parse_labels(text) == labels
    with pytest.raises(ValueError, match="holds no label"):
        parse_labels("[]")


@pytest.mark.parametrize("template", ["{:>30000000}", "{label}", "{} {}", "{0.__class__}", "none"])
def test_a_template_of_a_row_that_is_more_than_a_place_is_a_dead_letter(models, template):
    task = "zero-shot-classification"
    columns = {
        "text": ["a", "b"],
        "candidate_labels": [["c", "d"]] * 2,
        "hypothesis_template": ["{{x}} {}", template],
    }
    batch = run(task, models[task], columns)
    assert set(batch.failures) == {1}
    assert "must hold {} once" in batch.failures[1].message
    truth = transformers.pipeline(task, models[task], device="cpu")
    expected = truth("a", candidate_labels=["c", "d"], hypothesis_template="{{x}} {}")
    assert batch.results["labels"].to_pylist()[0] == expected["labels"]
    assert batch.results["scores"].to_pylist()[0] == pytest.approx(expected["scores"], abs=1e-4)


def test_tensors_for_the_forward_pass_are_on_the_models_device(models):
    pipeline = transformers.pipeline(ASR, models["whisper"], device="cpu")
    pipeline.device = torch.device("meta")  # as if it were on a GPU
    task = find_task(ASR)
    given = task.to_pipeline_parameters({"generate_kwargs": {"prompt_ids": [5, 6]}})
    _, during, _ = find_keywords(task, pipeline, given)
    assert during["prompt_ids"].device.type == "meta"
