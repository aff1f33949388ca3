"""text-classification (alias sentiment-analysis): a label for each text or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.device_transfer import Outputs, to_host_async
from pipemill.actors.task import Column, Followed, Loaded, Parameter

from ..adapter.row_values import read_own_count
from ..embeddings.pooling import pair_vectors_with_counts, pool_windows
from ..engines.encoder import make_encoder
from ..label_names import ONE_LABEL, RANKED_LABELS, check_label_names
from ..plain_form import (
    Comparison,
    PlainForm,
    find_truncation,
    plain_text_classification,
    to_plain_parameters,
)
from ..task_spec import Values
from ..text import model_limits, token_chunks, windows
from ..text.cross_encoder_config import (
    find_activation,
    find_default_activation,
    read_cross_encoder_files,
)
from ..text.probabilities import compute_sigmoid, compute_softmax
from . import shared_parameters

_WINDOW_POOLINGS = ("mean", "max")


def _make_batch_parameters(loaded: Loaded) -> Values:
    return {**to_plain_parameters(loaded.parameters), **find_truncation(loaded)}


class TextClassification:
    """A label for each text, or for each pair of texts.

    Adds `label` and `score`; with `top_k` other than 1 the lists `labels` and `scores`, best
    first (`top_k: null` gives all labels). `function_to_apply` is "softmax", "sigmoid" or "none".
    Without it the model's configuration decides, as in `transformers.TextClassificationPipeline`.
    A cross-encoder with one label gets the function that its folder names, as in
    `sentence_transformers.CrossEncoder`.

    A text longer than the model, or than `max_length`, is cut into windows of that many tokens.
    They overlap by `stride` tokens; of a pair only the first text is cut. `window_pooling` pools
    the windows' scores: to their "mean", weighted by the windows' tokens, or to each label's
    largest ("max"), for labels that hold if any passage shows them. It pools scores, not logits,
    so that softmax scores still add up to 1, and one passage of extreme logits does not outvote
    all others. `truncation: true` keeps the first window only, as in transformers, and the run
    counts the tokens lost.
    """

    name = "text-classification"
    adds = "label, score; with top_k other than 1 labels, scores: lists, best first"
    repeats = True
    inputs = (
        Column(name="text", kind="text"),
        Column(name="text_pair", kind="text", required=False),
        shared_parameters.TOP_K,
    )
    parameters: Mapping[str, Parameter] = {
        "top_k": Parameter(1, "int|null"),
        "function_to_apply": Parameter(None, "str|null", (None, "softmax", "sigmoid", "none")),
        "window_pooling": Parameter("mean", "str", _WINDOW_POOLINGS),
        **windows.PARAMETERS,
    }

    files = staticmethod(read_cross_encoder_files)
    plain = PlainForm(
        declared=plain_text_classification(inputs[:2]), batch_parameters=_make_batch_parameters
    )

    @staticmethod
    def follow(parameters: Mapping[str, Any], files: Mapping[str, Any]) -> Followed:
        check_label_names(files.get("config.json", {}))
        if parameters["function_to_apply"] is not None:
            return Followed()
        name = find_activation(files)
        if name is None or name == find_default_activation(files):
            return Followed()
        return Followed(decides={"function_to_apply": _NAMES.get(name, name)})

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        windows.check_parameters(parameters)

    def __init__(self, loaded: Loaded) -> None:
        settings, pipeline = loaded.settings(self.parameters), loaded.pipeline
        if "text_pair" not in loaded.columns:
            windows.check_single_texts(settings["truncation"])
        self.encoder = make_encoder(loaded, reads="first")
        self.ranks = settings["top_k"] != 1 or "top_k" in loaded.columns
        self.top_k, self.window_pooling = settings["top_k"], settings["window_pooling"]
        self.function = settings["function_to_apply"] or find_activation(loaded.files)
        self.activation = _find_activation(pipeline.model.config, self.function)
        self.window_tokenizer = windows.WindowTokenizer.from_settings(
            pipeline, _find_chunk_limit(pipeline, settings), settings
        )
        self.labels = np.array(_list_labels(pipeline.model.config), dtype=object)

    @property
    def packed(self) -> bool:
        return self.encoder.is_packed

    def results(self) -> pa.Schema:
        return RANKED_LABELS if self.ranks else ONE_LABEL

    def expand(self, rows: pa.Table) -> pa.ListArray:
        self._read_top_k(rows)  # to find a wrong one before anything is computed
        if "text_pair" not in rows.column_names:
            return self.window_tokenizer.make_chunks(rows["text"].to_pylist())
        paired = pc.is_valid(rows["text_pair"])
        # A fast tokenizer treats an empty second text as no second text.
        if self.window_tokenizer.tokenizer.is_fast:
            paired = pc.fill_null(pc.not_equal(rows["text_pair"], ""), False)
        pairs, singles = rows.filter(paired), rows.filter(pc.invert(paired))
        lists = [
            self.window_tokenizer.make_chunks(*(column.to_pylist() for column in columns))
            for columns in ((pairs["text"], pairs["text_pair"]), (singles["text"],))
            if len(columns[0])
        ]
        order = np.argsort(pc.sort_indices(paired, sort_keys=[("", "descending")]).to_numpy())
        return pa.concat_arrays(lists).take(pa.array(order))

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, lengths = self.encoder(chunks)
        return to_host_async(logits, lambda array: pair_vectors_with_counts(array, lengths))

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        counts, chunks = pc.list_value_length(outputs).to_numpy(), outputs.flatten()
        scores = self.activation(token_chunks.to_matrix(chunks.field("vector")))
        tokens = chunks.field("tokens").to_numpy()
        scores = pool_windows(scores, tokens, counts, self.window_pooling)
        if not self.ranks:
            best = scores.argmax(axis=1)
            columns = [self.labels[best], scores[np.arange(len(best)), best]]
            return pa.table(columns, schema=self.results())
        best = np.argsort(-scores, axis=1, kind="stable")
        kept = np.arange(best.shape[1]) < self._read_top_k(rows)[:, None]
        ranked = np.take_along_axis(scores, best, axis=1)
        values = pa.array(self.labels[best][kept], pa.string()), pa.array(ranked[kept])
        lists = [make_lists(one, kept.sum(axis=1)) for one in values]
        return pa.table(lists, schema=self.results())

    def comparison(self, given: Mapping[str, Any]) -> Comparison:
        """Return how plain transformers computes a row. given: the job's parameters."""
        function = to_plain_function(self.function)
        parameters = to_plain_parameters(given)
        if self.function:
            parameters["function_to_apply"] = function

        def can_answer(row: pa.Table) -> bool:
            if function is None or "top_k" in row.column_names:
                return False
            return len(self.expand(row)[0]) == 1

        parameters |= self.window_tokenizer.truncating
        return Comparison(parameters=parameters, can_answer=can_answer)

    def _read_top_k(self, rows: pa.Table) -> np.ndarray:
        """Return how many labels each row gets, shape (rows,).

        A row's value in the column `top_k` wins over the parameter.
        """
        default = len(self.labels) if self.top_k is None else self.top_k
        counts = np.full(rows.num_rows, default)
        if "top_k" in rows.column_names:
            values = [
                read_own_count("top_k", value, default) for value in rows["top_k"].to_pylist()
            ]
            counts = np.array(values, dtype=np.int64)
        # A negative number leaves out that many labels, as in a slice.
        return np.where(counts < 0, len(self.labels) + counts, counts)


def _find_chunk_limit(pipeline: Any, settings: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a chunk; None for any number.

    Unless a job asks for it, only texts that the model has no positions for are cut: transformers
    answers all others whole.
    """
    limits = [model_limits.count_positions(pipeline.model), settings["max_length"]]
    if windows.truncates(settings["truncation"]) and settings["max_length"] is None:
        limits.append(model_limits.find_max_length(pipeline))
    return min((limit for limit in limits if limit), default=None)


def _find_activation(config: Any, name: str | None) -> Any:
    """Return the function from logits to scores, both of shape (rows, labels)."""
    if name is None:
        if config.problem_type == "regression":
            name = "none"
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            name = "sigmoid"
        else:
            name = "softmax"
    name = _NAMES.get(name, name)
    function = _ACTIVATIONS.get(name.lower())
    return _wrap_torch_function(name) if function is None else function


def to_plain_function(name: str | None) -> str | None:
    """Return transformers' name of a function; "default" for None, None if it does not have it."""
    if name is None:
        return "default"
    plain = _NAMES.get(name, name).lower()
    return plain if plain in _ACTIVATIONS else None


def _wrap_torch_function(name: str) -> Any:
    """Return a function of `torch.nn` that takes and returns numpy arrays."""
    import torch

    function = getattr(torch.nn, name)()
    return lambda logits: function(torch.from_numpy(np.array(logits))).numpy()


def _list_labels(config: Any) -> list[str]:
    """Return the labels in the order of the logits."""
    return [str(config.id2label[i]) for i in range(len(config.id2label))]


# Folders of cross-encoders name functions as `torch.nn` does.
_NAMES = {"Sigmoid": "sigmoid", "Identity": "none"}
_ACTIVATIONS = {
    "softmax": compute_softmax,
    "sigmoid": compute_sigmoid,
    "none": lambda logits: logits,
}
