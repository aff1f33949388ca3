"""Tasks that read an image with a question or a prompt: as in `test_image_tasks.py`.

The restored ones are held against the restored pipeline, which has tests of its own against
transformers 4.57.6.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

pytest.importorskip("PIL")

from tests.support import tiny
from tests.support.image_rows import WAYS, check, files, pictures, plain
from tests.support.row_by_row import assert_rows, run

ways = pytest.mark.parametrize(("budget", "form"), WAYS)
QUESTIONS = [
    "is it red ?",
    "who",
    "what is it ?",
    "is it cold",
    "who",
    "what is red ?",
    "who",
    "is it",
]


def _document(row):
    """Words with their boxes: for some rows one window, for some several."""
    words = tiny.sentence([5, 20, 60, 90, 12, 35, 50, 3][row], row).split()
    boxes = [
        [10 * i % 900, 7 * i % 800, 10 * i % 900 + 40, 7 * i % 800 + 12] for i in range(len(words))
    ]
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
    assert task.forwards.chunked


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


def test_documents_of_words_alone(models):
    """Where the model reads no image, words with their boxes are enough."""
    name = "document-question-answering"
    documents = [_document(row) for row in range(4)]
    columns = {
        "question": QUESTIONS[:6],
        "words": [*(words for words, _ in documents), None, ["one"]],
        "boxes": [*(boxes for _, boxes in documents), None, None],
    }
    batch = run(name, models[name], columns)
    expected = [
        plain(name, models[name])(
            image=None, question=question, word_boxes=list(zip(*document, strict=True))
        )[0]
        for question, document in zip(QUESTIONS, documents, strict=False)
    ]
    assert_rows(batch, [*expected, "expand", "expand"])
    assert batch.failures[4].message == "the row has no image, and no words with their boxes"
    assert "words and boxes must be lists of one length" in batch.failures[5].message


def test_boxes_are_whole_numbers(models):
    name, (words, boxes) = "document-question-answering", _document(0)
    floats = [[float(side) for side in box] for box in boxes]  # as frames have them
    wrong = [[*floats[:-1], last] for last in ([0.5, 0, 9, 9], [0, 0, 9], [0, 0, 9, float("nan")])]
    columns = {
        "question": ["who"] * 5,
        "words": [words] * 5,
        "boxes": [floats, *wrong, [*floats[:-1], None]],
    }
    word_boxes = list(zip(words, boxes, strict=True))
    expected = plain(name, models[name])(image=None, question="who", word_boxes=word_boxes)[0]
    batch = run(name, models[name], columns)
    assert_rows(batch, [expected, *["expand"] * 4], different=1)
    assert batch.failures[1].message == (
        "a box is four whole numbers (0 to 1000), not [0.5, 0.0, 9.0, 9.0]"
    )


def test_a_model_that_sees_the_document_needs_its_image(models):
    name = "document-question-answering"
    columns = {"question": ["who"], "words": [["a"]], "boxes": [[[0, 0, 9, 9]]]}
    batch = run(name, models[f"{name}-donut"], columns)
    assert batch.failures[0].message == "the row has no image"


@ways
def test_document_question_answering_by_a_model_that_writes(models, tmp_path, budget, form):
    name = "document-question-answering"
    model = models[f"{name}-donut"]
    expected = []
    for image, question in zip(pictures(), QUESTIONS, strict=True):
        found = plain(name, model)(image=image, question=question)
        expected.append({"score": None, "start": None, "end": None, **found[0]})
    own = {"question": QUESTIONS}
    task = check(name, model, files(), expected, tmp_path, budget=budget, form=form, own=own)
    if budget > 1:
        assert task.forwards.alone[False] is False, "prompts of one length share a batch"
    # Also the keys and values of each document would be 150 MB, of Donut's size.
    row = pa.table({"image": files(1), "question": ["who"]})
    (chunk,) = task.expand(row).flatten().to_pylist()
    output = task.forwards.run_singly([(chunk["inputs"], chunk["settings"])])[0]
    assert [name for name, one in output.items() if one is not None] == ["sequences", "is_last"]


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
    from pipemill.pipelines.restored.visual_question_answering import (
        VisualQuestionAnsweringPipeline,
    )
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
    task = check(
        "image-to-text", model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters,
    )  # fmt: skip
    assert task.schedules is ("blip" not in model)
    if budget > 1 and not task.schedules:
        assert task.forwards.alone[False] is False, "images of one size share `generate`'s batches"


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
