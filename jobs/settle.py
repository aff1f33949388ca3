"""Parameters that a task settles by a few rows, once, for all the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .plan import Split
from .sources import Source

_PLACES, _ROWS = 4, 200


def settled_parameters(
    task: Any,
    parameters: Mapping[str, Any],
    model: str,
    source: Source,
    splits: list[Split],
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """What rows of some splits say; nothing of a task that leaves nothing to them."""
    settle = getattr(task, "settle", None)
    if settle is None or not splits:
        return {}
    tables = []
    for place in np.unique(np.linspace(0, len(splits) - 1, _PLACES).astype(int)):
        try:
            batch = source.read(json.loads(splits[place].to_json()))
        except Exception:  # what is wrong with it the run will say
            continue
        tables.append(batch.rows.slice(0, _ROWS))
    if not tables:
        return {}
    rows = pa.concat_tables(tables)
    values = {name: rows[column].to_pylist() for name, column in columns.items()}
    return settle(parameters, values, Path(model))
