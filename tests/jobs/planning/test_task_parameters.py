"""From a job's parameters to those that its task is loaded with. No Ray."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.planning.resolve_task import resolve_task
from pipemill.jobs.prepare import prepare_without_output
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.text.candidate_labels import HypothesisTemplate

import pipemill
from pipemill.errors import ConfigError


@pytest.fixture
def planned(models, tmp_path):
    rows = pa.table({"text": ["a river"], "words": [["a", "river"]], "question": ["what"]})
    pq.write_table(rows, tmp_path / "rows.parquet")

    def plan(task, parameters, **columns):
        job = pipemill.Job(
            task=task,
            # Of questions nothing but the parameters is looked at.
            model={"path": models["fill-mask"], "allow_missing": True}
            if task == "question-answering"
            else models[task],
            input={"path": str(tmp_path / "rows.parquet"), "columns": columns},
            output=str(tmp_path / "out"),
            parameters=parameters,
        )
        return prepare_without_output(job).load

    return plan


def taken(load):
    return json.loads(load.parameters)


def test_null_leaves_a_default_unless_it_means_something(planned):
    given = {"ignore_labels": None, "aggregation_strategy": None, "stride": None}
    assert taken(planned("token-classification", given)) == {"stride": None}
    given = dict.fromkeys(["doc_stride", "max_answer_len", "top_k", "align_to_words"])
    assert taken(planned("question-answering", given, context="text")) == {}
    given = {"top_k": None, "truncation": None, "stride": None}
    assert taken(planned("text-classification", given)) == {"top_k": None, "truncation": None}
    # Neither does it take the place of what some rows say.
    assert taken(planned("fill-mask", {"several_masks": None})) == {"several_masks": False}


def test_choices_are_known_in_any_case(planned):
    given = {"aggregation_strategy": "SIMPLE"}
    assert taken(planned("token-classification", given)) == {"aggregation_strategy": "simple"}
    with pytest.raises(ConfigError, match="aggregation_strategy is one of none, simple, .*'SOME'"):
        planned("token-classification", {"aggregation_strategy": "SOME"})


def test_words_are_a_column_of_lists_only_if_the_parameters_say_so(planned):
    split = {"is_split_into_words": True}
    assert planned("token-classification", split, text="words").columns == (("text", "words"),)
    with pytest.raises(ConfigError, match="column 'words' is list<.*reads text as 'text'"):
        planned("token-classification", {}, text="words")
    with pytest.raises(ConfigError, match="column 'text' is string.*reads a list of words"):
        planned("token-classification", split)


# What can't be right, whatever the model: the task, its parameters, and what the message says.
WRONG = [
    ("text-classification", {"top_k": 1.5}, "top_k is a whole number or null, not 1.5"),
    ("text-classification", {"top_k": 2**70}, "top_k is a whole number"),
    ("text-classification", {"function_to_apply": "relu"}, "function_to_apply is one of"),
    ("text-classification", {"stride": 9, "max_length": 9}, r"stride \(9\).* max_length \(9\)"),
    ("text-classification", {"padding_side": "up"}, "padding_side is one of null, left, right"),
    ("text-classification", {"pad_to_multiple_of": 0}, "pad_to_multiple_of is a whole number of"),
    ("feature-extraction", {"truncation": "only_second"}, "only_second, and there is no second"),
    ("token-classification", {"stride": -1}, "stride is a whole number of at least 0 or null"),
    ("token-classification", {"ignore_labels": [1]}, r"ignore_labels\[0\] is a text, not 1"),
    ("token-classification", {"ignore_labels": ["O", None]}, r"ignore_labels\[1\] is a text"),
    ("fill-mask", {"top_k": -1}, "top_k is a whole number of at least 0, not -1"),
    ("fill-mask", {"targets": []}, r"targets is .*not empty.*, not \[\]"),
    ("fill-mask", {"targets": ""}, "targets is .*not empty"),
    ("fill-mask", {"targets": ["a", 3]}, r"targets\[1\] is a text, not 3: put it in quotes$"),
    ("question-answering", {"top_k": 0}, "top_k is a whole number of at least 1, not 0"),
    ("question-answering", {"topk": 0}, "topk is a whole number of at least 1"),
    ("question-answering", {"max_answer_len": 0}, "max_answer_len is .* at least 1"),
    ("question-answering", {"max_seq_len": 0}, "max_seq_len is .* at least 1"),
    ("question-answering", {"max_question_len": -4}, "max_question_len is .* at least 1"),
    ("question-answering", {"doc_stride": -1}, "doc_stride is .* at least 0"),
    ("question-answering", {"doc_stride": 50, "max_seq_len": 50}, r"doc_stride \(50\)"),
    ("question-answering", {"padding": "some"}, "padding is one of"),
    ("document-question-answering", {"doc_stride": 60, "max_seq_len": 50}, r"doc_stride \(60\)"),
    ("document-question-answering", {"max_answer_len": 0}, "max_answer_len is"),
    ("visual-question-answering", {"top_k": -1}, "top_k is a whole number of at least 0"),
    ("table-question-answering", {"truncation": "rows"}, "truncation is one of.*drop_rows_to_fit"),
    ("table-question-answering", {"padding": "most"}, "padding is one of true, false, longest"),
    ("zero-shot-classification", {"candidate_labels": []}, "candidate_labels is .*not empty"),
    ("zero-shot-classification", {"candidate_labels": ""}, "candidate_labels is .*not empty"),
    ("zero-shot-classification", {"candidate_labels": " , "}, "' , ' holds no label"),
    ("zero-shot-classification", {"candidate_labels": [None]}, "holds no label"),
    (
        "zero-shot-classification",
        {"candidate_labels": ["a", False]},  # YAML's "no"
        r"candidate_labels\[1\] is a text or null, not False: put it in quotes$",
    ),
    ("zero-shot-image-classification", {"candidate_labels": [None, None]}, "holds no label"),
    ("zero-shot-audio-classification", {"candidate_labels": ","}, "holds no label"),
    ("zero-shot-object-detection", {"candidate_labels": [1]}, r"candidate_labels\[0\] is"),
    ("zero-shot-object-detection", {"threshold": 1.5}, "threshold is a number from 0 to 1"),
    ("object-detection", {"threshold": -0.1}, "threshold is a number from 0 to 1, not -0.1"),
    ("object-detection", {"threshold": float("nan")}, "threshold is a number from 0 to 1, not nan"),
    ("keypoint-matching", {"threshold": 50}, "threshold is a number from 0 to 1, not 50"),
    ("image-segmentation", {"mask_threshold": 2}, "mask_threshold is a number from 0 to 1"),
    ("image-segmentation", {"overlap_mask_area_threshold": -1}, "overlap_mask_area_threshold is"),
    ("image-segmentation", {"subtask": "all"}, "subtask is one of null, panoptic"),
    (
        "image-feature-extraction",
        {"pool": True, "pooling": "max"},
        "pool is true, .* and pooling is max: leave one out",
    ),
    (
        "automatic-speech-recognition",
        {"generate_kwargs": {"prompt_ids": "a word"}},
        "generate_kwargs: prompt_ids is a list",
    ),
    ("automatic-speech-recognition", {"language": ["en", "de"]}, "language is a text or null"),
    ("image-classification", {"top_k": "5"}, "top_k is a whole number, not '5'"),
    ("audio-classification", {"top_k": -1}, "top_k is a whole number of at least 0 or null"),
    ("video-classification", {"num_frames": 0}, "num_frames is a whole number of at least 1"),
    ("video-classification", {"frame_sampling_rate": 0}, "frame_sampling_rate is"),
    ("mask-generation", {"points_per_batch": 0}, "points_per_batch is a whole number of at least"),
    ("mask-generation", {"crops_n_layers": -1}, "crops_n_layers is a whole number of at least 0"),
    ("mask-generation", {"crop_overlap_ratio": 2}, "crop_overlap_ratio is a number from 0 to 1"),
    (
        "mask-generation",
        {"points_per_crop": 3, "crops_n_layers": 2, "crop_n_points_downscale_factor": 2},
        r"points_per_crop \(3\)",
    ),
    ("mask-generation", {"pred_iou_thresh": float("inf")}, "pred_iou_thresh is a number, not inf"),
    ("automatic-speech-recognition", {"chunk_length_s": -1}, "chunk_length_s is a number of at"),
    (
        "automatic-speech-recognition",
        {"chunk_length_s": 2, "stride_length_s": 1},
        r"stride_length_s \(1\) leaves nothing of a chunk.* chunk_length_s \(2\)",
    ),
    (
        "automatic-speech-recognition",
        {"chunk_length_s": 2, "stride_length_s": [2, 0]},
        r"stride_length_s \(\[2, 0\]\) leaves nothing",
    ),
    ("automatic-speech-recognition", {"stride_length_s": [1]}, "stride_length_s is .*list of 2"),
    ("automatic-speech-recognition", {"stride_length_s": [1, -1]}, r"stride_length_s\[1\] is"),
    (
        "automatic-speech-recognition",
        {"chunk_length_s": float("inf")},
        "chunk_length_s is a number",
    ),
    (
        "text-generation",
        {"num_beams": 2, "generate_kwargs": {"num_beams": 3}},
        "num_beams is given twice, in generate_kwargs and outside it",
    ),
    ("text-generation", {"max_new_tokens": 0}, "max_new_tokens is a whole number of at least 1"),
    ("text-generation", {"max_new_tokens": "9"}, "max_new_tokens is a whole number"),
    ("text-generation", {"max_new_tokens": True}, "max_new_tokens is a whole number"),
    ("text-generation", {"min_new_tokens": 9, "max_new_tokens": 3}, r"min_new_tokens \(9\)"),
    ("text-generation", {"do_sample": True, "temperature": 0}, "temperature must be above 0"),
    ("text-generation", {"temperature": -0.5}, "temperature is a number of at least 0"),
    ("text-generation", {"num_beams": 2, "num_return_sequences": 3}, r"num_return_sequences \(3\)"),
    (
        "text-generation",
        {"num_beams": 1, "do_sample": False, "num_return_sequences": 2},
        "or do_sample must be true",
    ),
    ("text-generation", {"top_p": -0.1}, "top_p is a number from 0 to 1"),
    ("text-generation", {"stop_sequence": []}, "stop_sequence is .*not empty"),
    ("text-generation", {"stop_sequence": ["a", 1]}, r"stop_sequence\[1\] is a text"),
    ("text-generation", {"bad_words_ids": [[]]}, r"bad_words_ids\[0\] is a list"),
    ("text-generation", {"generate_kwargs": {"num_beams": 0}}, "generate_kwargs: num_beams is"),
    ("text-generation", {"tools": ["search"]}, r"tools\[0\] is a mapping"),
    ("conversational", {"num_return_sequences": 2}, "num_return_sequences must be 1"),
    ("summarization", {"min_length": 30, "max_length": 20}, r"min_length \(30\)"),
    ("summarization", {"truncation": "most"}, "truncation is one of"),
    ("translation", {"src_lang": ""}, "src_lang is a text that is not empty"),
    (
        "image-to-text",
        {"max_new_tokens": 3, "generate_kwargs": {"max_new_tokens": 4}},
        "max_new_tokens is given twice",
    ),
    ("image-text-to-text", {"generate_kwargs": {"top_k": -1}}, "generate_kwargs: top_k is"),
    ("text-to-audio", {"generate_kwargs": {"num_beams": -1}}, "generate_kwargs: num_beams is"),
]
TEMPLATES = [
    "a label",
    "{label}",
    "{0}",
    "{} {}",
    "{:>30}",
    "{!r}",
    "{0.__class__}",
    "{",
    "a }",
    "",
]


def refuse(task, parameters, folder, message):
    (folder / "config.json").write_text("{}")
    job = pipemill.Job(
        task=task, model=str(folder), input="in", output="out", parameters=parameters
    )
    with pytest.raises(ConfigError, match=message):
        resolve_task(job, ModelFiles(str(folder)))


@pytest.mark.parametrize(("task", "parameters", "message"), WRONG)
def test_values_that_can_not_be_right_are_named_before_anything_loads(
    tmp_path, task, parameters, message
):
    refuse(task, parameters, tmp_path, f"parameters of {task}: .*{message}")


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["zero-shot", "zero-shot-image", "zero-shot-audio"])
def test_a_template_holds_one_place_for_the_label_and_nothing_else(tmp_path, kind, template):
    given = {"candidate_labels": ["a"], "hypothesis_template": template}
    refuse(f"{kind}-classification", given, tmp_path, "hypothesis_template .* must hold {} once")


@pytest.mark.parametrize("template", ["{}", "a {{b}} {} c", "{}}}", "}}{{ {}"])
def test_a_template_is_filled_as_by_transformers(template):
    assert HypothesisTemplate(template).fill("{x} %s") == template.format("{x} %s")


# Odd, but taken by transformers.
RIGHT = [
    ("text-classification", {"top_k": 0}),
    ("text-classification", {"top_k": -3}),
    ("text-classification", {"top_k": 1000, "function_to_apply": "SOFTMAX"}),
    ("text-classification", {"stride": 9, "max_length": 9, "truncation": True}),
    ("image-classification", {"top_k": -1}),
    ("audio-classification", {"top_k": 0}),
    ("question-answering", {"max_seq_len": 100}),
    ("question-answering", {"top_k": 5, "topk": 3, "doc_stride": 0}),
    ("token-classification", {"ignore_labels": []}),
    ("zero-shot-classification", {"candidate_labels": "a,,b"}),
    ("zero-shot-classification", {"candidate_labels": ["a", "a", None]}),
    ("zero-shot-image-classification", {"candidate_labels": "one"}),
    ("automatic-speech-recognition", {"stride_length_s": 5}),
    ("automatic-speech-recognition", {"chunk_length_s": 6, "stride_length_s": [5, 0.5]}),
    ("automatic-speech-recognition", {"return_timestamps": "word"}),
    ("mask-generation", {"points_per_batch": None, "pred_iou_thresh": -1, "mask_threshold": -3}),
    ("text-generation", {"temperature": 0, "do_sample": False, "top_k": 0}),
    ("text-generation", {"num_return_sequences": 3, "stop_sequence": "\n"}),
    ("text-generation", {"early_stopping": "never", "eos_token_id": [1, 2], "pad_token_id": -1}),
    ("text-generation", {"generate_kwargs": {"something_of_the_models": 1}}),
    ("table-question-answering", {"truncation": "drop_rows_to_fit", "padding": "max_length"}),
]


@pytest.mark.parametrize(("task", "parameters"), RIGHT)
def test_what_transformers_takes_is_taken(tmp_path, task, parameters):
    (tmp_path / "config.json").write_text("{}")
    job = pipemill.Job(
        task=task, model=str(tmp_path), input="in", output="out", parameters=parameters
    )
    found = resolve_task(job, ModelFiles(str(tmp_path)))
    assert (found.spec.name, found.is_user) == (task, False)


def test_columns_with_the_names_of_parameters_are_told_and_can_be_left_out(
    models, tmp_path, capsys
):
    rows = {"text": ["a [MASK]", "[MASK] of"], "targets": [[1], [2]], "top_k": [3, -7]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    words = ["--task", "fill-mask", "--model", models["fill-mask"]]
    words += ["--input", str(tmp_path / "rows.parquet"), "--set", "actors.placement=local"]
    words += ["--set", "output.max_errors=null"]
    assert main(["run", *words, "--output", str(tmp_path / "read")]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["done"], told["dead"]) == (1, 1)
    assert [note.split(" is ")[0] for note in told["notes"]] == [
        "column 'targets'",
        "column 'top_k'",
    ]
    assert "--column top_k= (input.columns: {top_k: null})" in err
    letters = pq.read_table(tmp_path / "read/_pipemill/dead-letter")
    assert "top_k is a whole number of at least 0, not -7" in letters["message"][0].as_py()
    words += ["--column", "top_k=", "--set", "input.columns.targets=null"]
    assert main(["preview", *words, "--output", str(tmp_path / "left")]) == 0
    assert "note:" not in capsys.readouterr().err
    assert main(["run", *words, "--output", str(tmp_path / "left")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], "notes" in told) == (2, False)
    table = pq.read_table(tmp_path / "left")
    assert table["top_k"].to_pylist() == [3, -7]
    assert [len(found) for found in table["predictions"].to_pylist()] == [5, 5]
    # The same output again is the same job.
    assert main(["run", *words, "--output", str(tmp_path / "left")]) == 0
