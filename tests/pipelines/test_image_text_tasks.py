"""Tasks that read an image with labels, a question or a prompt, and videos, row by row.

As in `test_image_tasks.py`: every size of micro-batch, kind of media and placement, against
plain `transformers.pipeline`; the restored ones against the restored pipeline, which has tests of
its own against transformers 4.57.6.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pytest

pytest.importorskip("PIL")

from tests import made_media, tiny

from .image_rows import WAYS, answers, check, column, files, pictures, plain
from .test_image_tasks import ranked

ways = pytest.mark.parametrize(("budget", "form"), WAYS)
LABELS = ["red", "blue river", "a small cold town"]
OWN_LABELS = [LABELS, LABELS[:2], ["stone"], LABELS, LABELS[1:], ["bread"] * 2, LABELS, LABELS[::-1]]
QUESTIONS = ["is it red ?", "who", "what is it ?", "is it cold", "who", "what is red ?", "who", "is it"]


@ways
@pytest.mark.parametrize("model", ["", "-siglip"])
@pytest.mark.parametrize("more", [{}, {"hypothesis_template": "it is {}"}])
def test_zero_shot_image_classification(models, tmp_path, model, more, budget, form):
    name = "zero-shot-image-classification"
    model, parameters = models[f"{name}{model}"], {"candidate_labels": LABELS, **more}
    expected = [ranked(plain(name, model)(image, **parameters)) for image in pictures()]
    task = check(
        name, model, files(), expected, tmp_path, budget=budget, form=form, parameters=parameters
    )
    assert task.stacks is (None if budget == 1 else True)


@ways
@pytest.mark.parametrize("as_text", [False, True])
def test_zero_shot_image_classification_with_labels_for_each_row(
    models, tmp_path, as_text, budget, form
):
    name = "zero-shot-image-classification"
    model = models[name]
    templates = ["{}", None, "it is {}", "{}", None, "not {} .", "{}", None]
    expected = []
    for image, labels, template in zip(pictures(), OWN_LABELS, templates, strict=True):
        given = {} if template is None else {"hypothesis_template": template}
        expected.append(ranked(plain(name, model)(image, candidate_labels=labels, **given)))
    own = {
        "candidate_labels": [", ".join(x) for x in OWN_LABELS] if as_text else OWN_LABELS,
        "hypothesis_template": templates,
    }
    check(name, model, files(), expected, tmp_path, budget=budget, form=form, own=own)


@ways
@pytest.mark.parametrize(
    "more", [{}, {"threshold": 0.9, "top_k": 3}, {"threshold": 0.999, "top_k": 1}]
)
def test_zero_shot_object_detection(models, tmp_path, more, budget, form):
    name = "zero-shot-object-detection"
    model = models[name]
    truth = plain(name, model)
    expected = [{"objects": truth(image, LABELS, **more)} for image in pictures()]
    task = check(
        name, model, files(), expected, tmp_path, budget=budget, form=form,
        parameters={"candidate_labels": LABELS, **more},
    )  # fmt: skip
    assert task.stacks is (None if budget == 1 else True)


@ways
def test_zero_shot_object_detection_with_labels_for_each_row(models, tmp_path, budget, form):
    name = "zero-shot-object-detection"
    model = models[name]
    counts = [1, 2, 3, 4, 5, 6, 7, 8]
    expected = [
        {"objects": plain(name, model)(image, labels, top_k=k)}
        for image, labels, k in zip(pictures(), OWN_LABELS, counts, strict=True)
    ]
    own = {"candidate_labels": OWN_LABELS, "top_k": counts}
    check(name, model, files(), expected, tmp_path, budget=budget, form=form, own=own)


def test_rows_without_labels_die_alone(models, tmp_path):
    for name in ("zero-shot-image-classification", "zero-shot-object-detection"):
        labels = pa.array([["red"], [], ["blue"]])
        images = column(files()[:3], "bytes", tmp_path)
        rows = pa.table({"image": images, "candidate_labels": labels})
        batches, _ = answers(name, models[name], rows, {}, 100, tmp_path)
        assert [(row, f.stage) for row, f in batches[0].failures.items()] == [(1, "expand")]


@lru_cache(maxsize=1)
def videos():
    sizes = [(40, 24), (18, 34), (32, 32), (120, 90), (16, 16), (64, 48)]
    return tuple(made_media.video(*size, 8 + 3 * i, i) for i, size in enumerate(sizes))


@ways
@pytest.mark.parametrize(
    "parameters",
    [{}, {"top_k": 2, "frame_sampling_rate": 2}, {"num_frames": 4, "function_to_apply": "sigmoid"}],
)
def test_video_classification(models, tmp_path, parameters, budget, form):
    pytest.importorskip("av")
    name = "video-classification"
    model = models[name]
    truth = plain(name, model)
    expected = []
    for i, data in enumerate(videos()):
        path = tmp_path / f"truth{i}.mp4"
        path.write_bytes(data)
        expected.append(ranked(truth(str(path), **parameters)))
    task = check(
        name, model, videos(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, media="video",
    )  # fmt: skip
    assert task.stacks is (None if budget == 1 else True)


def _document(row):
    """Words with their boxes: for some rows one window, for some several."""
    words = tiny.sentence([5, 20, 60, 90, 12, 35, 50, 3][row], row).split()
    boxes = [[10 * i % 900, 7 * i % 800, 10 * i % 900 + 40, 7 * i % 800 + 12] for i in range(len(words))]
    return words, boxes


@ways
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_answer_len": 3, "max_seq_len": 24, "doc_stride": 6},
        {"top_k": 3, "handle_impossible_answer": True},
    ],
)
def test_document_question_answering(models, tmp_path, parameters, budget, form):
    name = "document-question-answering"
    model = models[name]
    documents = [_document(row) for row in range(8)]
    expected = []
    for image, question, (words, boxes) in zip(pictures(), QUESTIONS, documents, strict=True):
        word_boxes = list(zip(words, boxes, strict=True))
        found = plain(name, model)(
            image=image, question=question, word_boxes=word_boxes, **parameters
        )
        expected.append({"answers": found} if "top_k" in parameters else found[0])
    own = {
        "question": QUESTIONS,
        "words": [words for words, _ in documents],
        "boxes": [boxes for _, boxes in documents],
    }
    task = check(
        name, model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, own=own,
    )  # fmt: skip
    assert task.chunked


@ways
def test_document_question_answering_with_one_question_and_a_top_k_for_each_row(
    models, tmp_path, budget, form
):
    name = "document-question-answering"
    model = models[name]
    documents = [_document(row) for row in range(8)]
    counts = [1, 2, 3, 1, 2, 3, 4, 1]
    expected = [
        {
            "answers": plain(name, model)(
                image=image, question="who", word_boxes=list(zip(*document, strict=True)), top_k=k
            )
        }
        for image, document, k in zip(pictures(), documents, counts, strict=True)
    ]
    own = {
        "words": [words for words, _ in documents],
        "boxes": [boxes for _, boxes in documents],
        "top_k": counts,
    }
    check(
        name, model, files(), expected, tmp_path, budget=budget, form=form,
        parameters={"question": "who"}, own=own,
    )  # fmt: skip


@ways
def test_document_question_answering_by_a_model_that_writes(models, tmp_path, budget, form):
    name = "document-question-answering"
    model = models[f"{name}-donut"]
    expected = []
    for image, question in zip(pictures(), QUESTIONS, strict=True):
        found = plain(name, model)(image=image, question=question)
        expected.append({"score": None, "start": None, "end": None, **found[0]})
    own = {"question": QUESTIONS}
    check(name, model, files(), expected, tmp_path, budget=budget, form=form, own=own)


@ways
@pytest.mark.parametrize("parameters", [{}, {"top_k": 1}, {"top_k": 2}])
def test_visual_question_answering(models, tmp_path, parameters, budget, form):
    name = "visual-question-answering"
    model = models[name]
    expected = []
    for image, question in zip(pictures(), QUESTIONS, strict=True):
        found = plain(name, model)(image, question, **parameters)
        if parameters.get("top_k") == 1:
            expected.append({"answer": found[0]["answer"], "score": found[0]["score"]})
        else:
            answers, scores = [f["answer"] for f in found], [f["score"] for f in found]
            expected.append({"answers": answers, "scores": scores})
    check(
        name, model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, own={"question": QUESTIONS},
    )  # fmt: skip


@ways
def test_visual_question_answering_by_a_model_that_writes(
    models, tmp_path, monkeypatch, budget, form
):
    from pipemill.pipelines.restored.visual_question_answering import VisualQuestionAnsweringPipeline
    from transformers import GenerationConfig

    # Random weights never end: 256 tokens for each of the rows take a minute.
    few = GenerationConfig(max_new_tokens=6)
    monkeypatch.setattr(VisualQuestionAnsweringPipeline, "_default_generation_config", few)
    name = "visual-question-answering"
    model = models[f"{name}-blip"]
    truth = plain.__wrapped__(name, model)
    expected = []
    for image in pictures(4):
        (found,) = truth(image, "who is it ?")
        expected.append({"answers": [found["answer"]], "scores": [None]})
    check(
        name, model, files(4), expected, tmp_path, budget=budget, form=form,
        parameters={"question": "who is it ?"},
    )  # fmt: skip


@ways
@pytest.mark.parametrize("model", ["", "-blip"])
def test_image_to_text(models, tmp_path, model, budget, form):
    model = models[f"image-to-text{model}"]
    parameters = {"generate_kwargs": {"max_new_tokens": 8}}
    truth = plain("image-to-text", model)
    expected = [truth(image, **parameters)[0] for image in pictures()]
    check(
        "image-to-text", model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters,
    )  # fmt: skip


@ways
def test_image_to_text_with_a_prompt_for_each_row(models, tmp_path, budget, form):
    model = models["image-to-text-blip"]
    truth = plain("image-to-text", model)
    prompts = ["a", "the red", None, "a", "it is", "the", None, "cold"]
    parameters = {"generate_kwargs": {"max_new_tokens": 6}}
    expected = []
    for image, prompt in zip(pictures(), prompts, strict=True):
        given = {} if prompt is None else {"prompt": prompt}
        expected.append(truth(image, **parameters, **given)[0])
    check(
        "image-to-text", model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, own={"prompt": prompts},
    )  # fmt: skip
