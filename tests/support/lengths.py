"""A task without a model, which fails on demand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.task import Column


class Lengths:
    """Chunks of up to three letters; the answer is the text, put together again, and its length.

    A text with the name of a stage in it makes that stage raise.
    """

    name = "lengths"
    inputs = (Column(name="text", kind="text"),)
    parameters: Mapping[str, Any] = MappingProxyType({})
    packed = False
    repeats = True

    def __init__(self):
        self.seen = []

    def results(self):
        return pa.schema([("again", pa.string()), ("length", pa.int32())])

    def expand(self, rows):
        self._fail(rows["text"].to_pylist(), "expand")
        return pa.array(
            [
                [
                    {"size": len(text[i : i + 3]), "letters": text[i : i + 3], "whole": text}
                    for i in range(0, len(text), 3)
                ]
                for text in rows["text"].to_pylist()
            ],
            pa.list_(
                pa.struct([("size", pa.int64()), ("letters", pa.string()), ("whole", pa.string())])
            ),
        )

    def forward(self, chunks):
        self._fail(chunks.field("whole").to_pylist(), "forward")
        self.seen.append(len(chunks))
        return pc.utf8_upper(chunks.field("letters"))

    def regroup(self, rows, outputs):
        self._fail(rows["text"].to_pylist(), "regroup")
        again = ["".join(parts) for parts in outputs.to_pylist()]
        return pa.table({"again": again, "length": [len(text) for text in again]})

    def _fail(self, texts, stage):
        if any(stage in text for text in texts):
            raise KeyError(f"this is {stage}")
