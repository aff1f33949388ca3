"""Labels: the columns of tasks that add some, and a check of the names that a config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

ONE_LABEL = pa.schema([("label", pa.string()), ("score", pa.float32())])
RANKED_LABELS = pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def check_label_names(config: Mapping[str, Any]) -> None:
    """Raise ValueError if the names of the labels are not numbered from 0 on.

    config: of a model, as in its config.json.
    """
    names = config.get("id2label")
    if names is None:
        return
    if not isinstance(names, dict):
        raise ValueError(
            "id2label in its config.json must give a name to each number, as an object"
        )
    for number in range(len(names)):
        if str(number) not in names:
            raise ValueError(
                f"id2label in its config.json has {len(names)} labels, but not number {number}: "
                "number them from 0 on"
            )
