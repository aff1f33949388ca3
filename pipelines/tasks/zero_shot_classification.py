"""zero-shot-classification: which of a row's own labels fits its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.device_transfer import Outputs, to_host_async
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.row_values import own_value_error
from ..engines.encoder import Encoder
from ..text import model_limits, token_chunks
from ..text.truncation import count_truncated_in_batch, truncate_to_prefix
from .candidate_labels import (
    CANDIDATE_LABELS,
    HypothesisTemplate,
    check_candidate_labels,
    parse_labels,
)

_TEMPLATE = "This example is {}."


class ZeroShotClassification:
    """Ranks labels by how far the text entails them; each (text, label) pair is a chunk.

    Adds the lists `labels` and `scores`, best first. The labels, the template and `multi_label`
    hold for all rows as parameters, or differ by row as columns. The text is cut to what the
    model takes, the label never is, as in `transformers.ZeroShotClassificationPipeline`; the run
    counts the tokens that this lost.
    """

    name = "zero-shot-classification"
    adds = "labels, scores: lists, best first"
    repeats = True
    inputs = (
        Column(name="text", kind="text"),
        Column(name="candidate_labels", kind="labels", parameter=True),
        Column(name="hypothesis_template", kind="text", required=False, parameter=True),
        Column(name="multi_label", kind="flag", required=False, parameter=True),
    )
    parameters: Mapping[str, Parameter] = {
        "candidate_labels": CANDIDATE_LABELS,
        "hypothesis_template": Parameter(_TEMPLATE, "str"),
        "multi_label": Parameter(False, "bool"),
    }

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        check_candidate_labels(parameters)

    def __init__(self, loaded: Loaded) -> None:
        self.pipeline = pipeline = loaded.pipeline
        self.encoder = Encoder(pipeline, reads="first", compiles=loaded.compiles)
        self.defaults = loaded.settings(self.parameters)
        self.max_length = model_limits.find_max_length(pipeline)
        self.limit = model_limits.count_positions(pipeline.model)
        self.equal_sizes = model_limits.needs_equal_sizes(pipeline)
        entailment = pipeline.entailment_id
        self.contrast = [-1 if entailment == 0 else 0, entailment]

    @property
    def packed(self) -> bool:
        return self.encoder.packed

    def results(self) -> pa.Schema:
        return pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        texts, hypotheses, beyond = [], [], []
        labels = self._labels(rows)
        templates = self._templates(rows)
        for text, own, template in zip(rows["text"].to_pylist(), labels, templates, strict=True):
            if not text:
                raise ValueError("zero-shot needs a text that is not empty")
            text, more = truncate_to_prefix(self.pipeline.tokenizer, text, self.max_length)
            beyond.append(more)
            texts += [text] * len(own)
            hypotheses += [template.with_label(label) for label in own]
        encoding = self._tokenize(texts, hypotheses, rows.num_rows)
        counts = np.fromiter(map(len, labels), np.int64)
        starts = np.cumsum(counts) - counts
        lost = self._lost(encoding, texts, hypotheses, starts)
        lost[starts] += np.array(beyond, dtype=np.int32)
        chunks = token_chunks.build_chunks(encoding, self.equal_sizes, lost)
        token_chunks.check_chunk_sizes(chunks, self.limit, "the label alone is longer than that")
        return token_chunks.group_by_row(chunks, counts)

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, _ = self.encoder(chunks)
        return to_host_async(
            logits, lambda array: token_chunks.to_vector_array(array[:, self.contrast])
        )

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        counts = pc.list_value_length(outputs).to_numpy()
        row = np.repeat(np.arange(len(counts)), counts)
        logits = token_chunks.to_matrix(outputs.flatten())
        alone = np.array(self._values(rows, "multi_label"), dtype=bool) | (counts == 1)
        # Against contradiction for each label alone, or against the row's other labels.
        pair = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))
        starts = np.cumsum(counts) - counts
        shifted = np.exp(logits[:, 1] - np.maximum.reduceat(logits[:, 1], starts)[row])
        scores = np.where(alone[row], pair, shifted / np.add.reduceat(shifted, starts)[row])
        order = np.lexsort((-np.arange(len(row)), -scores, row))
        labels = np.array([label for own in self._labels(rows) for label in own], dtype=object)
        offsets = pa.array(np.append(starts, len(row)), pa.int32())
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(labels[order], pa.string())),
            pa.ListArray.from_arrays(offsets, pa.array(scores[order], pa.float32())),
        ]
        return pa.table(columns, schema=self.results())

    def _lost(
        self, encoding: Any, texts: list[str], hypotheses: list[str], starts: np.ndarray
    ) -> np.ndarray:
        """Tokens cut from each row's text for its longest label, said by the row's first chunk."""
        lost = np.zeros(len(texts), dtype=np.int32)
        if self.max_length is not None:
            pairs = (texts, hypotheses)
            of_pair = count_truncated_in_batch(
                self.pipeline.tokenizer, encoding, pairs, self.max_length
            )
            lost[starts] = np.maximum.reduceat(of_pair, starts)
        return lost

    def _templates(self, rows: pa.Table) -> list[HypothesisTemplate]:
        try:
            return list(map(HypothesisTemplate, self._values(rows, "hypothesis_template")))
        except ValueError as error:
            raise own_value_error(error, ["hypothesis_template"]) from None

    def _values(self, rows: pa.Table, name: str) -> list[Any]:
        default = self.defaults[name]
        if name not in rows.column_names:
            return [default] * rows.num_rows
        return [default if value is None else value for value in rows[name].to_pylist()]

    def _labels(self, rows: pa.Table) -> list[list[str]]:
        return list(map(parse_labels, self._values(rows, "candidate_labels")))

    def _tokenize(self, texts: list[str], hypotheses: list[str], rows: int) -> Any:
        tokenizer = self.pipeline.tokenizer
        try:
            return tokenizer(
                texts,
                hypotheses,
                truncation="only_first" if self.max_length else False,
                max_length=self.max_length,
                return_attention_mask=False,
            )
        except Exception as error:
            if "too short" not in str(error) or rows > 1:  # the others are tried without it
                raise
            # The text can't be cut enough to make room for the label.
            return tokenizer(texts, hypotheses, return_attention_mask=False)
