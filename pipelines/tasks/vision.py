"""Tasks that find things in images: objects, segments, masks, depth, matching points."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..pipeline_task import PipelineTask, Values, fixed
from ..text.candidate_labels import CANDIDATE_LABELS, check_candidate_labels
from . import shared_parameters

_IMAGE = Column(name="image", kind="image")
_THRESHOLD = Column(name="threshold", kind="number", required=False, parameter=True)
_BOX = pa.struct([(side, pa.int32()) for side in ("xmin", "ymin", "xmax", "ymax")])
_OBJECTS = fixed(
    objects=pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32()), ("box", _BOX)]))
)
_POINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.list_(pa.int32()))])


def _to_objects(answer: Any, values: Values) -> Values:
    return {"objects": [{**found, "box": _to_box(found["box"])} for found in answer]}


def _to_box(box: dict[str, Any]) -> dict[str, Any]:
    """Return a box; of one that is turned (PP-OCR's, four corners) the upright one around it."""
    if isinstance(box["xmin"], int | float):
        return box
    across, down = zip(*box.values(), strict=True)
    return {"xmin": min(across), "ymin": min(down), "xmax": max(across), "ymax": max(down)}


def _to_segments(answer: Any, values: Values) -> Values:
    from ..media import encode_png

    return {"segments": [{**segment, "mask": encode_png(segment["mask"])} for segment in answer]}


def _make_mask_schema(loaded: Loaded) -> pa.Schema:
    columns = [("masks", pa.list_(pa.binary())), ("scores", pa.list_(pa.float32()))]
    if loaded.parameters.get("output_bboxes_mask"):
        columns.append(("bounding_boxes", pa.list_(pa.list_(pa.float32()))))
    if loaded.parameters.get("output_rle_mask"):
        columns.append(("rle_mask", pa.list_(_RLE)))
    return pa.schema(columns)


def _to_masks(answer: Any, values: Values) -> Values:
    import numpy as np

    from ..media import encode_png

    record = {
        "masks": [encode_png(np.asarray(mask, dtype=bool)) for mask in answer["masks"]],
        "scores": answer["scores"].tolist(),
    }
    if "bounding_boxes" in answer:
        record["bounding_boxes"] = [box.tolist() for box in answer["bounding_boxes"]]
    if "rle_mask" in answer:
        record["rle_mask"] = answer["rle_mask"]
    return record


def _to_depth(answer: Any, values: Values) -> Values:
    from ..media import encode_png

    return {
        # A list of arrays: Python's numbers would take many times the memory.
        "predicted_depth": list(answer["predicted_depth"].float().numpy()),
        "depth": encode_png(answer["depth"]),
    }


OBJECT_DETECTION = PipelineTask(
    name="object-detection",
    adds="objects: a list of structs of label, score, box (xmin, ymin, xmax, ymax)",
    inputs=(_IMAGE, _THRESHOLD),
    parameters={"threshold": shared_parameters.fraction(0.5)},
    results=_OBJECTS,
    record=_to_objects,
)

ZERO_SHOT_OBJECT_DETECTION = PipelineTask(
    name="zero-shot-object-detection",
    adds="objects: a list of structs of label, score, box (xmin, ymin, xmax, ymax)",
    inputs=(
        _IMAGE,
        Column(name="candidate_labels", kind="labels", parameter=True),
        shared_parameters.TOP_K,
        _THRESHOLD,
    ),
    parameters={
        "candidate_labels": CANDIDATE_LABELS,
        "threshold": shared_parameters.fraction(0.1),
        "top_k": Parameter(None, "int|null"),
    },
    results=_OBJECTS,
    record=_to_objects,
    own_parameters=("candidate_labels",),
    checks=check_candidate_labels,
)


def _check_subtask(values: Values, pipeline: Any) -> None:
    subtask, processor = values["subtask"], pipeline.image_processor
    if subtask and not hasattr(processor, f"post_process_{subtask}_segmentation"):
        raise ValueError(
            f"subtask is {subtask}, which {type(processor).__name__} can't do: choose another one, "
            "or leave it out"
        )


IMAGE_SEGMENTATION = PipelineTask(
    name="image-segmentation",
    adds="segments: a list of structs of label, score, mask (PNG)",
    inputs=(_IMAGE,),
    parameters={
        "subtask": Parameter(None, "str|null", (None, "panoptic", "instance", "semantic")),
        "threshold": shared_parameters.fraction(0.9),
        "mask_threshold": shared_parameters.fraction(0.5),
        "overlap_mask_area_threshold": shared_parameters.fraction(0.5),
    },
    results=fixed(
        segments=pa.list_(
            pa.struct([("label", pa.string()), ("score", pa.float32()), ("mask", pa.binary())])
        )
    ),
    record=_to_segments,
    suits=_check_subtask,
)


def _check_points_per_crop(values: Values) -> None:
    points, layers = values["points_per_crop"], values["crops_n_layers"]
    factor = values["crop_n_points_downscale_factor"]
    if factor > 1 and points < factor ** min(layers, 64):
        raise ValueError(
            f"points_per_crop ({points}) leaves the smallest crops without points: it must be "
            f"at least crop_n_points_downscale_factor ({factor}) to the power of crops_n_layers "
            f"({layers})"
        )


MASK_GENERATION = PipelineTask(
    name="mask-generation",
    adds="masks: a list of PNGs; scores; bounding_boxes, rle_mask where output_… is true",
    inputs=(_IMAGE,),
    parameters={
        "points_per_batch": Parameter(64, "int|null", least=1),
        "points_per_crop": shared_parameters.count(32, least=1),
        "crops_n_layers": shared_parameters.count(0),
        "crop_overlap_ratio": shared_parameters.fraction(512 / 1500),
        "crop_n_points_downscale_factor": shared_parameters.count(1, least=1),
        "pred_iou_thresh": Parameter(0.88, "float"),
        "stability_score_thresh": Parameter(0.95, "float"),
        "stability_score_offset": Parameter(1, "float"),
        "mask_threshold": Parameter(0, "float"),
        "max_hole_area": Parameter(None, "float|null", least=0),
        "max_sprinkle_area": Parameter(None, "float|null", least=0),
        "crops_nms_thresh": Parameter(0.7, "float"),
        "output_rle_mask": Parameter(False, "bool"),
        "output_bboxes_mask": Parameter(False, "bool"),
    },
    results=_make_mask_schema,
    record=_to_masks,
    libraries=("torchvision.ops.boxes",),
    expands_with_model=True,
    checks=_check_points_per_crop,
    batchable=False,  # its _forward reads the first chunk only
)

DEPTH_ESTIMATION = PipelineTask(
    name="depth-estimation",
    wants_float32=True,
    adds="predicted_depth: a list of rows of float32; depth: PNG",
    inputs=(_IMAGE,),
    results=fixed(predicted_depth=pa.list_(pa.list_(pa.float32())), depth=pa.binary()),
    record=_to_depth,
)

KEYPOINT_MATCHING = PipelineTask(
    name="keypoint-matching",
    adds="matches: a list of structs of keypoint_image_0, keypoint_image_1 (x, y), score",
    inputs=(_IMAGE, Column(name="image_pair", kind="image")),
    parameters={"threshold": shared_parameters.fraction(0.0)},
    results=fixed(
        matches=pa.list_(
            pa.struct(
                [
                    ("keypoint_image_0", _POINT),
                    ("keypoint_image_1", _POINT),
                    ("score", pa.float32()),
                ]
            )
        )
    ),
    record=lambda answer, values: {"matches": answer},
    prepare=lambda values, pipeline: [values["image"], values["image_pair"]],
)


def _to_picture(answer: Any, values: Values) -> Values:
    from ..media import encode_png

    return {"image_out": encode_png(answer)}


IMAGE_TO_IMAGE = PipelineTask(
    name="image-to-image",
    adds="image_out: PNG",
    inputs=(_IMAGE,),
    results=fixed(image_out=pa.binary()),
    record=_to_picture,
)
