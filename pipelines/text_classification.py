"""text-classification, alias sentiment-analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.task import Column

from . import text_encoder

_TOKENIZER = ("truncation", "max_length", "add_special_tokens")


class TextClassification:
    """A label for each text, or for each pair of texts.

    Adds `label` and `score`; with `top_k` other than 1 the lists `labels` and `scores`, best
    first (`top_k: null` gives all labels). `function_to_apply` is "softmax", "sigmoid" or "none";
    without it the model's configuration decides, as in `transformers.TextClassificationPipeline`.
    """

    name = "text-classification"
    inputs = (
        Column(name="text", kind="text"),
        Column(name="text_pair", kind="text", required=False),
    )
    parameters: Mapping[str, Any] = {
        "top_k": 1,
        "function_to_apply": None,
        "truncation": False,
        "max_length": None,
        "add_special_tokens": True,
    }

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        function = parameters["function_to_apply"]
        if function is not None and str(function).lower() not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"function_to_apply is one of {known}, not {function!r}")
        for name in ("top_k", "max_length"):
            if not isinstance(parameters[name], int | None):
                raise ValueError(f"{name} is a number or null, not {parameters[name]!r}")

    def __init__(self, pipeline: Any, parameters: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.top_k = parameters.get("top_k", 1)
        self.tokenize = {name: parameters[name] for name in _TOKENIZER if name in parameters}
        self.activation = _activation(pipeline.model.config, parameters.get("function_to_apply"))
        if self.tokenize.get("truncation") and self.tokenize.get("max_length") is None:
            self.tokenize["max_length"] = text_encoder.max_length(pipeline)
        self.limit = text_encoder.positions(pipeline.model)
        self.equal_sizes = text_encoder.needs_equal_sizes(pipeline)
        labels = pipeline.model.config.id2label
        self.labels = np.array([labels[i] for i in range(len(labels))], dtype=object)

    def results(self) -> pa.Schema:
        if self.top_k == 1:
            return pa.schema([("label", pa.string()), ("score", pa.float32())])
        return pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        chunks = self._tokenized(rows)
        text_encoder.check_length(chunks, self.limit, "set parameters.truncation to true")
        return text_encoder.one_per_row(chunks)

    def _tokenized(self, rows: pa.Table) -> pa.StructArray:
        if "text_pair" not in rows.column_names:
            return self._encode(rows["text"])
        # A row whose second text is null or empty is a text alone, as it is to transformers.
        paired = pc.fill_null(pc.not_equal(rows["text_pair"], ""), False)
        both, alone = rows.filter(paired), rows.filter(pc.invert(paired))
        pieces = [
            self._encode(*columns)
            for columns in ((both["text"], both["text_pair"]), (alone["text"],))
            if len(columns[0])
        ]
        order = np.argsort(pc.sort_indices(paired, sort_keys=[("", "descending")]).to_numpy())
        return pa.concat_arrays(pieces).take(pa.array(order))

    def _encode(self, *texts: pa.ChunkedArray) -> pa.StructArray:
        lists = [column.to_pylist() for column in texts]
        encoding = self.pipeline.tokenizer(*lists, return_attention_mask=False, **self.tokenize)
        return text_encoder.as_chunks(encoding, self.equal_sizes)

    def forward(self, chunks: pa.StructArray) -> pa.FixedSizeListArray:
        outputs, _ = text_encoder.run(self.pipeline, chunks)
        return text_encoder.vectors(outputs.logits)

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        scores = self.activation(text_encoder.matrix(outputs.flatten()))
        if self.top_k == 1:
            best = scores.argmax(axis=1)
            columns = [self.labels[best], scores[np.arange(len(best)), best]]
            return pa.table(columns, schema=self.results())
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        offsets = pa.array(np.arange(len(best) + 1) * best.shape[1], pa.int32())
        ranked = np.take_along_axis(scores, best, axis=1)
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(self.labels[best].ravel())),
            pa.ListArray.from_arrays(offsets, pa.array(ranked.ravel())),
        ]
        return pa.table(columns, schema=self.results())


def _activation(config: Any, name: str | None) -> Any:
    """The function from logits to scores, shapes (rows, labels)."""
    if name is None:
        if config.problem_type == "regression":
            name = "none"
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            name = "sigmoid"
        else:
            name = "softmax"
    return _ACTIVATIONS[name.lower()]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


_ACTIVATIONS = {"softmax": softmax, "sigmoid": _sigmoid, "none": lambda logits: logits}
