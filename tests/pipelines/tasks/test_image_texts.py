"""Tasks that read an image with labels of the user's, and videos: as in `test_image_tasks.py`."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pytest

pytest.importorskip("PIL")

from pipemill.pipelines.media import let_pyav_decode

from tests.pipelines.tasks.test_vision import ranked
from tests.support import made_media
from tests.support.image_rows import WAYS, answers, check, column, files, pictures, plain

ways = pytest.mark.parametrize(("budget", "form"), WAYS)
LABELS = ["red", "blue river", "a small cold town"]
OWN_LABELS = [
    LABELS,
    LABELS[:2],
    ["stone"],
    LABELS,
    LABELS[1:],
    ["bread"] * 2,
    LABELS,
    LABELS[::-1],
]


@ways
@pytest.mark.parametrize("model", ["", "-siglip"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"hypothesis_template": "it is {}"},
        {"tokenizer_kwargs": {"max_length": 4, "truncation": True}},
    ],
)
def test_zero_shot_image_classification(models, tmp_path, model, more, budget, form):
    name = "zero-shot-image-classification"
    model, parameters = models[f"{name}{model}"], {"candidate_labels": LABELS, **more}
    expected = [ranked(plain(name, model)(image, **parameters)) for image in pictures()]
    task = check(
        name, model, files(), expected, tmp_path, budget=budget, form=form, parameters=parameters
    )
    assert task.forwards.alone.get(False) is (None if budget == 1 else False)


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


def test_labels_that_differ_only_after_the_first_rows(models, tmp_path):
    """All of them are in one micro-batch; what is tried beforehand is of equal labels."""
    name = "zero-shot-image-classification"
    model, own = models[name], [LABELS] * 5 + [LABELS[:2], ["stone"], LABELS[::-1]]
    expected = [
        ranked(plain(name, model)(image, candidate_labels=labels))
        for image, labels in zip(pictures(), own, strict=True)
    ]
    check(
        name, model, files(), expected, tmp_path, budget=1_000_000, form="bytes",
        own={"candidate_labels": own},
    )  # fmt: skip


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
    assert task.forwards.alone.get(False) is (None if budget == 1 else False)


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
    let_pyav_decode(truth)
    expected = []
    for i, data in enumerate(videos()):
        path = tmp_path / f"truth{i}.mp4"
        path.write_bytes(data)
        expected.append(ranked(truth(str(path), **parameters)))
    task = check(
        name, model, videos(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, media="video",
    )  # fmt: skip
    assert task.forwards.alone.get(False) is (None if budget == 1 else False)
