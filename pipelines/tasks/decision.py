"""decision: questions about a state, answered by a model for decisions."""

from __future__ import annotations

import base64
from typing import Any

from pipemill.actors.task import Column, Parameter

from ..adapter.row_values import read_json
from ..pipeline_task import PipelineTask, Values


def _prepare_request(values: Values, pipeline: Any) -> Any:
    """Return the request of a row, or build it from the row's state and the questions.

    Raises:
        ValueError: for a row without either, and for assets that hold no image.
    """
    request = read_json(values.get("request"))
    if request is None:
        if "state" not in values:
            raise ValueError("the row has neither a request nor a state")
        if values.get("questions") is None:
            raise ValueError(
                "the row has a state, but no questions: map a column to questions, or set "
                "parameters.questions"
            )
        request = {"state": values["state"], "questions": values["questions"]}
    if isinstance(request, dict) and request.get("assets"):
        assets = {name: _decode_asset(name, asset) for name, asset in request["assets"].items()}
        request = {**request, "assets": assets}
    return request


def _decode_asset(name: str, asset: Any) -> Any:
    """Decode the image of an asset.

    transformers would take a path or URL too, and read it from anywhere.
    """
    from ..media import decode_image, require_media_library

    if not (isinstance(asset, dict) and isinstance(asset.get("data_base64"), str)):
        raise ValueError(
            f"the asset {name!r} must hold its image as base64 text: {{data_base64: …}}"
        )
    require_media_library("image")
    return decode_image(base64.b64decode(asset["data_base64"], validate=True))


DECISION = PipelineTask(
    name="decision",
    inputs=(
        Column(name="request", kind="record", required=False),
        Column(name="state", kind="any", required=False),
        Column(name="questions", kind="record", required=False, parameter=True),
    ),
    one_of=("request", "state"),
    parameters={"questions": Parameter(None, "dict|null")},
    prepare=_prepare_request,
    own_parameters=("questions",),
    batchable=False,
)
