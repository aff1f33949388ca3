"""Tasks that read an image alone, against plain `transformers.pipeline`, row by row.

Rows of very different sizes, one of them broken, in micro-batches of every size; media as bytes,
paths and structs; in one process and staged.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")

from tests.support.image_rows import WAYS, Near, answers, check, column, files, pictures, plain

ways = pytest.mark.parametrize(("budget", "form"), WAYS)


def ranked(answer):
    return {"labels": [a["label"] for a in answer], "scores": [a["score"] for a in answer]}


@ways
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": 2},
        {"top_k": 50, "function_to_apply": "sigmoid"},
        {"function_to_apply": "none"},
    ],
)
def test_image_classification(models, tmp_path, parameters, budget, form):
    model = models["image-classification"]
    truth = plain("image-classification", model)
    expected = [ranked(truth(image, **parameters)) for image in pictures()]
    task = check(
        "image-classification", model, files(), expected, tmp_path,
        budget=budget, form=form, parameters=parameters,
    )  # fmt: skip
    assert task.forwards.alone.get(False) is (None if budget == 1 else False)


@ways
@pytest.mark.parametrize("kind", [int, float])
def test_image_classification_with_a_top_k_for_each_row(models, tmp_path, budget, form, kind):
    model = models["image-classification"]
    truth = plain("image-classification", model)
    wanted = [1, 3, None, 2, 5, 1, 7, 3]
    expected = [
        ranked(truth(image, **({} if k is None else {"top_k": k})))
        for image, k in zip(pictures(), wanted, strict=True)
    ]
    own = {"top_k": [None if k is None else kind(k) for k in wanted]}
    check(
        "image-classification", model, files(), expected, tmp_path,
        budget=budget, form=form, own=own,
    )  # fmt: skip


POOLED = {
    "mean": lambda v: v.mean(axis=0),
    "cls": lambda v: v[0],
    "last": lambda v: v[-1],
    "max": lambda v: v.max(axis=0),
    "none": lambda v: v,
}


@ways
@pytest.mark.parametrize("model", ["", "-convolutions"])
@pytest.mark.parametrize("pooling", POOLED)
def test_image_feature_extraction(models, tmp_path, model, pooling, budget, form):
    normalize = pooling == "mean" or (pooling == "none" and not model)
    model = models[f"image-feature-extraction{model}"]
    truth = plain("image-feature-extraction", model)
    expected = []
    for image in pictures():
        vectors = np.array(truth(image)[0])
        if vectors.ndim == 3:  # columns first, then places
            vectors = vectors.reshape(len(vectors), -1).T
        vector = POOLED[pooling](vectors)
        if normalize:
            vector = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
        expected.append({"embedding": vector})
    check(
        "image-feature-extraction", model, files(), expected, tmp_path, budget=budget, form=form,
        parameters={"pooling": pooling, "normalize": normalize},
    )  # fmt: skip


@ways
def test_image_feature_extraction_by_the_models_own_pooling(models, tmp_path, budget, form):
    model = models["image-feature-extraction"]
    truth = plain("image-feature-extraction", model)
    parameters = {"pool": True, "image_processor_kwargs": {"do_normalize": False}}
    expected = [{"embedding": np.array(truth(i, **parameters)[0])} for i in pictures()]
    check(
        "image-feature-extraction", model, files(), expected, tmp_path,
        budget=budget, form=form, parameters=parameters,
    )  # fmt: skip


@ways
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("", {}),
        ("", {"subtask": "semantic"}),
        ("-detr", {"threshold": 0.1}),
        ("-detr", {"threshold": 0.2, "mask_threshold": 0.3, "overlap_mask_area_threshold": 0.1}),
    ],
)
def test_image_segmentation(models, tmp_path, model, parameters, budget, form):
    model = models[f"image-segmentation{model}"]
    truth = plain("image-segmentation", model)
    expected = [{"segments": truth(image, **parameters)} for image in pictures()]
    assert sum(len(e["segments"]) for e in expected) > 10
    check(
        "image-segmentation", model, files(), expected, tmp_path,
        budget=budget, form=form, parameters=parameters,
    )  # fmt: skip


@ways
@pytest.mark.parametrize("model", ["", "-yolos"])
@pytest.mark.parametrize("parameters", [{}, {"threshold": 0.1}])
def test_object_detection(models, tmp_path, model, parameters, budget, form):
    model = models[f"object-detection{model}"]
    truth = plain("object-detection", model)
    expected = [{"objects": truth(image, **parameters)} for image in pictures()]
    assert sum(len(e["objects"]) for e in expected) > 10
    check(
        "object-detection", model, files(), expected, tmp_path,
        budget=budget, form=form, parameters=parameters,
    )  # fmt: skip


def test_each_image_may_have_its_own_threshold(models, tmp_path):
    model = models["object-detection"]
    truth, own = plain("object-detection", model), [0.1, None, 0.5, 0.1]
    expected = [
        {"objects": truth(image, threshold=1.0 if threshold is None else threshold)}
        for image, threshold in zip(pictures(4), own, strict=True)
    ]
    assert len({len(e["objects"]) for e in expected}) > 1
    check(
        "object-detection", model, files(4), expected, tmp_path, budget=1_000_000, form="bytes",
        parameters={"threshold": 1.0}, own={"threshold": own},
    )  # fmt: skip


def test_a_turned_box_becomes_the_upright_one_around_it():
    from pipemill.pipelines.tasks.vision import OBJECT_DETECTION

    # What transformers' pipeline makes of the four corners that PP-OCR finds.
    corners = {"xmin": [9, 4], "ymin": [20, 2], "xmax": [21, 8], "ymax": [10, 10]}
    upright = {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
    exact = {name: side + 0.5 for name, side in upright.items()}  # a user's class may give them
    boxes = (corners, upright, exact)
    answer = [{"label": "text", "score": 0.5, "box": box} for box in boxes]
    objects = OBJECT_DETECTION.record(answer, {})["objects"]
    assert [found["box"] for found in objects] == [
        {"xmin": 9, "ymin": 2, "xmax": 21, "ymax": 10},
        upright,
        exact,
    ]


@ways
def test_depth_estimation(models, tmp_path, budget, form):
    model = models["depth-estimation"]
    truth = plain("depth-estimation", model)
    expected = []
    for image in pictures():
        answer = truth(image)
        depth = answer["predicted_depth"].numpy()
        assert depth.shape == (image.height, image.width)
        expected.append({"predicted_depth": depth, "depth": Near(answer["depth"])})
    task = check("depth-estimation", model, files(), expected, tmp_path, budget=budget, form=form)
    assert task.forwards.alone.get(False) is (None if budget == 1 else False)


@ways
@pytest.mark.parametrize("parameters", [{}, {"threshold": 0.3}])
def test_keypoint_matching(models, tmp_path, parameters, budget, form):
    model = models["keypoint-matching"]
    truth = plain("keypoint-matching", model)
    others = pictures()[::-1]
    expected = [
        {"matches": truth([image, other], **parameters)}
        for image, other in zip(pictures(), others, strict=True)
    ]
    check(
        "keypoint-matching", model, files(), expected, tmp_path, budget=budget, form=form,
        parameters=parameters, more={"image_pair": files()[::-1]},
    )  # fmt: skip


@ways
def test_image_to_image(models, tmp_path, budget, form):
    model = models["image-to-image"]
    truth = plain("image-to-image", model)
    expected = [{"image_out": truth(image)} for image in pictures(4)]
    check("image-to-image", model, files(4), expected, tmp_path, budget=budget, form=form)


def test_what_a_broken_image_is_told(models, tmp_path):
    import pyarrow as pa

    (tmp_path / "below").mkdir()
    (tmp_path / "secret.png").write_bytes(files()[0])
    values = [str(tmp_path / "secret.png"), "none.png"]
    rows = pa.table({"image": values})
    (batch, _), _ = answers(
        "image-classification", models["image-classification"], rows, {}, 100, tmp_path / "below"
    )
    assert [f.error for f in batch.failures.values()] == ["PermissionError", "FileNotFoundError"]
    rows = pa.table({"image": column([b"", b"GIF8 and no more"], "bytes", tmp_path)})
    (batch, _), _ = answers(
        "image-classification", models["image-classification"], rows, {}, 9, tmp_path
    )
    assert "0 bytes" in batch.failures[0].message
    message = batch.failures[1].message
    assert "broken or cut off" in message or "does not read" in message
