"""The one function of torchvision that mask generation calls, written with torch.

torchvision has no wheel on PyPI that fits torch for CPUs.
"""

from __future__ import annotations

import sys
import types
from importlib.util import find_spec

import numpy as np


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


def put_in(monkeypatch):
    """Takes torchvision's place until the test ends; image processors stay those of pillow.

    Where torchvision is there, with a torch that fits it, nothing is put in its place.
    """
    from transformers.utils import import_utils

    if find_spec("torchvision") is not None:
        return
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchvision.ops.boxes"].batched_nms = batched_nms
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "torchvision", (lambda: True, ""))
