"""mask-generation against plain `transformers.pipeline`, row by row.

It needs one function of torchvision, which has no wheel that fits torch for CPUs on PyPI: where
torchvision is not installed a stand-in takes its place, on both sides.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("PIL")

from tests.support import torchvision_stand_in
from tests.support.image_rows import WAYS, check, files, pictures, plain

EASY = {"pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}


@pytest.fixture
def torchvision(monkeypatch):
    torchvision_stand_in.put_in(monkeypatch)


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
