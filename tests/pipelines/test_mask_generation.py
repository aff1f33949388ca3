"""mask-generation against plain `transformers.pipeline`, row by row.

It needs one function of torchvision, which has no wheel that fits torch for CPUs on PyPI: a
stand-in takes its place. So the masks are compared under the stand-in's choice of them.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

pytest.importorskip("PIL")

from .image_rows import WAYS, check, files, pictures, plain

EASY = {"pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}


def batched_nms(boxes, scores, idxs, iou_threshold):
    """The best boxes of each class, without those that overlap a better one too much."""
    import torch

    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(idxs[i] != idxs[k] or _overlap(boxes[i], boxes[k]) <= iou_threshold for k in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def _overlap(one, other):
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(sides.clip(0).prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return both / (areas - both) if areas > both else 0.0


@pytest.fixture
def torchvision(monkeypatch):
    from transformers.utils import import_utils

    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchvision.ops.boxes"].batched_nms = batched_nms
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "torchvision", (lambda: True, ""))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(("budget", "form"), WAYS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"points_per_crop": 3, **EASY},
        {"points_per_crop": 3, "points_per_batch": 2, "output_bboxes_mask": True, **EASY},
        {"points_per_crop": 2, "crops_n_layers": 1, "output_rle_mask": True, **EASY},
    ],
)
def test_mask_generation(models, tmp_path, parameters, budget, form):
    model = models["mask-generation"]
    truth = plain("mask-generation", model)
    expected = [_as_columns(truth(image, **parameters)) for image in pictures(4)]
    assert sum(len(e["masks"]) for e in expected) > 5
    check(
        "mask-generation", model, files(4), expected, tmp_path,
        budget=budget, form=form, parameters=parameters,
    )  # fmt: skip


def _as_columns(answer):
    columns = {
        "masks": [np.asarray(mask, dtype=bool) for mask in answer["masks"]],
        "scores": answer["scores"].tolist(),
    }
    if "bounding_boxes" in answer:
        columns["bounding_boxes"] = answer["bounding_boxes"].tolist()
    if "rle_mask" in answer:
        columns["rle_mask"] = [dict(one) for one in answer["rle_mask"]]
    return columns


def test_without_torchvision_it_does_not_load(models, tmp_path):
    if "torchvision" in sys.modules:
        pytest.skip("torchvision is there")
    with pytest.raises(ImportError, match="mask-generation needs torchvision.*pip install"):
        check("mask-generation", models["mask-generation"], files(4), [], tmp_path,
              budget=9, form="bytes")  # fmt: skip
