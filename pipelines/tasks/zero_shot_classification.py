"""zero-shot-classification: labels that the job or the row gives, ranked for each text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.device_transfer import Outputs, to_host_async
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.task import Column, Followed, Loaded, Parameter

from ..adapter.row_values import explain_own_value
from ..engines.encoder import make_encoder
from ..label_names import RANKED_LABELS
from ..plain_form import Comparison, PlainForm, plain_zero_shot_classification, to_plain_parameters
from ..task_spec import ReadJson
from ..text import model_limits, token_chunks, windows
from ..text.candidate_labels import (
    CANDIDATE_LABELS,
    HypothesisTemplate,
    check_candidate_labels,
    parse_labels,
)
from ..text.probabilities import compute_sigmoid
from ..text.truncation import count_truncated_in_batch, truncate_to_prefix

_TEMPLATE = "This example is {}."
_CONFIG = "config.json"


def _read_labels_of_model(read: ReadJson) -> dict[str, Any]:
    config = read(_CONFIG)
    if not isinstance(config, dict):
        return {}
    return {_CONFIG: {key: config.get(key) for key in ("id2label", "label2id")}}


def _describe_entailment(files: Mapping[str, Any]) -> str | None:
    """Return what transformers warns of: no label of the model says which one is entailment.

    Raises:
        ValueError: for a model whose labels transformers can't read.
    """
    if _CONFIG not in files:
        return None
    names, numbers = files[_CONFIG]["id2label"], files[_CONFIG]["label2id"]
    if names and not numbers:
        raise ValueError(
            "config.json has id2label and no label2id, where zero-shot-classification looks for "
            "the label that begins with 'entail': add it"
        )
    if any(str(label).lower().startswith("entail") for label in numbers or ()):
        return None
    labels = ", ".join(map(str, numbers)) if numbers else "no names of labels"
    return (
        f"no label of the model ({labels}) begins with 'entail': its last one is taken for "
        "entailment, as transformers does; if that is wrong, set label2id in its config.json"
    )


class ZeroShotClassification:
    """Labels ranked by how far a text entails them; each (text, label) pair is a chunk.

    Adds the lists `labels` and `scores`, best first. The labels, the template and `multi_label`
    are parameters for all rows, or columns that differ by row. As in
    `transformers.ZeroShotClassificationPipeline`, a text is truncated to what the model takes, a
    label never. The run counts the tokens lost.
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

    files = staticmethod(_read_labels_of_model)
    plain = PlainForm(
        declared=plain_zero_shot_classification(inputs),
        # The pipeline truncates texts without being asked.
        batch_parameters=lambda loaded: to_plain_parameters(loaded.parameters),
    )

    @staticmethod
    def follow(parameters: Mapping[str, Any], files: Mapping[str, Any]) -> Followed:
        note = _describe_entailment(files)
        return Followed(notes=() if note is None else (note,))

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        check_candidate_labels(parameters)

    def __init__(self, loaded: Loaded) -> None:
        self.pipeline = pipeline = loaded.pipeline
        self.encoder = make_encoder(loaded, reads="first")
        self.defaults = loaded.settings(self.parameters)
        self.max_length = model_limits.find_max_length(pipeline)
        self.limit = model_limits.count_positions(pipeline.model)
        self.equal_sizes = model_limits.needs_equal_sizes(pipeline)
        entailment = pipeline.entailment_id
        self.contrast = [-1 if entailment == 0 else 0, entailment]

    @property
    def packed(self) -> bool:
        return self.encoder.is_packed

    def results(self) -> pa.Schema:
        return RANKED_LABELS

    def expand(self, rows: pa.Table) -> pa.ListArray:
        texts, truncated = [], []
        for text in rows["text"].to_pylist():
            if not text:
                raise ValueError("the text is empty: zero-shot-classification needs one")
            text, count = truncate_to_prefix(self.pipeline.tokenizer, text, self.max_length)
            texts.append(text)
            truncated.append(count)
        hypotheses = [
            [template.fill(label) for label in labels]
            for labels, template in zip(
                self._read_labels(rows), self._read_templates(rows), strict=True
            )
        ]
        sizes = [len(t) * len(h) for t, h in zip(texts, hypotheses, strict=True)]
        lists = []
        for part in windows.split_by_size(sizes):  # a text is tokenized once for each label
            mark_progress()
            lists.append(self._make_chunks(texts[part], hypotheses[part], truncated[part]))
        return pa.concat_arrays(lists)

    def _make_chunks(
        self, row_texts: list[str], row_hypotheses: list[list[str]], truncated: list[int]
    ) -> pa.ListArray:
        """Make the chunks of rows. truncated: tokens that were cut from each row's text before."""
        counts = np.fromiter(map(len, row_hypotheses), np.int64)
        texts = [t for t, count in zip(row_texts, counts, strict=True) for _ in range(count)]
        hypotheses = [hypothesis for several in row_hypotheses for hypothesis in several]
        encoding = self._tokenize(texts, hypotheses, len(row_texts))
        starts = np.cumsum(counts) - counts
        lost = self._count_truncated(encoding, texts, hypotheses, starts)
        lost[starts] += np.array(truncated, dtype=np.int32)
        chunks = token_chunks.build_chunks(encoding, self.equal_sizes, lost)
        token_chunks.check_chunk_sizes(chunks, self.limit, "the label alone is longer than that")
        return make_lists(chunks, counts)

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, _ = self.encoder(chunks)
        return to_host_async(
            logits, lambda array: token_chunks.to_vector_array(array[:, self.contrast])
        )

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        counts = pc.list_value_length(outputs).to_numpy()
        row = np.repeat(np.arange(len(counts)), counts)
        logits = token_chunks.to_matrix(outputs.flatten())
        alone = np.array(self._read_values(rows, "multi_label"), dtype=bool) | (counts == 1)
        # Entailment against contradiction for each label alone, or against the row's other labels.
        pair = compute_sigmoid(logits[:, 1] - logits[:, 0])
        starts = np.cumsum(counts) - counts
        shifted = np.exp(logits[:, 1] - np.maximum.reduceat(logits[:, 1], starts)[row])
        scores = np.where(alone[row], pair, shifted / np.add.reduceat(shifted, starts)[row])
        order = np.lexsort((-np.arange(len(row)), -scores, row))
        row_labels = self._read_labels(rows)
        labels = np.array([label for several in row_labels for label in several], dtype=object)
        ranked = pa.array(labels[order], pa.string()), pa.array(scores[order], pa.float32())
        return pa.table([make_lists(one, counts) for one in ranked], schema=self.results())

    def comparison(self, given: Mapping[str, Any]) -> Comparison:
        """Return how plain transformers computes a row. given: the job's parameters."""
        return Comparison(parameters=to_plain_parameters(given))

    def _count_truncated(
        self, encoding: Any, texts: list[str], hypotheses: list[str], starts: np.ndarray
    ) -> np.ndarray:
        """Count the tokens that were cut from each row's text for its longest label.

        Args:
            encoding: the tokenizer's output, one entry per chunk.
            texts: the text of each chunk.
            hypotheses: the hypothesis of each chunk.
            starts: the first chunk of each row, shape (rows,).

        Returns:
            Tokens, shape (chunks,): the row's number at its first chunk, 0 at the others.
        """
        lost = np.zeros(len(texts), dtype=np.int32)
        if self.max_length is not None:
            counts = count_truncated_in_batch(
                self.pipeline.tokenizer, encoding, (texts, hypotheses), self.max_length
            )
            lost[starts] = np.maximum.reduceat(counts, starts)
        return lost

    def _read_templates(self, rows: pa.Table) -> list[HypothesisTemplate]:
        try:
            return list(map(HypothesisTemplate, self._read_values(rows, "hypothesis_template")))
        except ValueError as error:
            raise explain_own_value(error, ["hypothesis_template"]) from None

    def _read_values(self, rows: pa.Table, name: str) -> list[Any]:
        """Return each row's value of a parameter, or the job's where the row has none."""
        default = self.defaults[name]
        if name not in rows.column_names:
            return [default] * rows.num_rows
        return [default if value is None else value for value in rows[name].to_pylist()]

    def _read_labels(self, rows: pa.Table) -> list[list[str]]:
        return list(map(parse_labels, self._read_values(rows, "candidate_labels")))

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
            if "too short" not in str(error) or rows > 1:  # the caller tries each row alone
                raise
            # Even an empty text leaves too little room for the label: `check_chunk_sizes` says so.
            return tokenizer(texts, hypotheses, return_attention_mask=False)
