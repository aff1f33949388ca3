"""feature-extraction: one vector for a text, or one for each of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.device_transfer import Outputs, to_host_async
from pipemill.actors.task import Column, Followed, Loaded, Parameter

from ..embeddings.embedding_head import EmbeddingHead
from ..embeddings.embedding_tokenizer import (
    count_prompt_tokens,
    find_chunk_limit,
    merge_tokenize_kwargs,
    prepare_tokenizer,
)
from ..embeddings.pooling import (
    POOLINGS,
    pair_vectors_with_counts,
    pool_and_concatenate,
    pool_windows,
)
from ..embeddings.sentence_transformers_config import build_recipe, find_shorter_limit
from ..embeddings.sentence_transformers_files import read_recipe_files
from ..embeddings.static_feature_extraction import StaticFeatureExtraction
from ..embeddings.stream_pooling import list_token_vectors, pool_stream
from ..engines.encoder import make_encoder
from ..engines.model_call import find_output_shape
from ..plain_form import (
    OWN_PARAMETERS,
    Comparison,
    PlainForm,
    find_truncation,
    plain_feature_extraction,
)
from ..task_spec import Values
from ..text import token_chunks, windows


def _find_prompt(loaded: Loaded) -> str:
    settings = loaded.settings(FeatureExtraction.parameters)
    return build_recipe(settings, loaded.files).prompt


def _make_batch_parameters(loaded: Loaded) -> Values:
    # Turning the vectors of all tokens into lists would be most of the time.
    keywords = {**_select_tokenizing(loaded.parameters), **find_truncation(loaded)}
    return {"tokenize_kwargs": keywords, "return_tensors": True}


def _select_tokenizing(given: Mapping[str, Any]) -> Values:
    """Return the parameters that the tokenizer takes from a job's."""
    flat, names = merge_tokenize_kwargs(given), windows.PARAMETERS.keys() - OWN_PARAMETERS
    return {name: value for name, value in flat.items() if name in names}


class FeatureExtraction:
    """The model's last hidden state for each text, pooled to one vector.

    Adds `embedding`, a fixed-size list of float32; with `pooling: none` one list per token, as
    `transformers.FeatureExtractionPipeline` returns them.

    `pooling: auto` does what the model's folder says. If sentence-transformers wrote it, the
    vector is that of `SentenceTransformer.encode`, with the folder's default prompt. For any other
    model it is the mean. `pooling` may also be "mean" over all tokens, the first ("cls") or "last"
    token's vector, or the "max" of each dimension: then nothing else in the folder is followed.
    `truncate_dim` keeps the first numbers of each vector, so many, and wins over the folder's.
    `normalize` scales what is left to length 1; false leaves out the scaling that a folder asks
    for.
    `prompt` is put before every text; `prompt_name` names a prompt of the folder.

    A text longer than the model is cut into windows of `max_length` tokens, or of the folder's
    `max_seq_length` if that is less. They overlap by `stride` tokens. Their vectors are pooled to
    one, weighted by tokens ("max" takes the maximum, "last" the last window, "none" concatenates
    them), before the steps after the pooling (Dense, Normalize). The first window begins with the
    prompt. `truncation: true` keeps the first window only, as `encode` does, and the run counts
    the tokens lost.
    """

    name = "feature-extraction"
    adds = "embedding: a fixed-size list of float32; with pooling none one for each token"
    repeats = True
    inputs = (Column(name="text", kind="text"),)
    parameters: Mapping[str, Parameter] = {
        "pooling": Parameter("auto", "str", ("auto", *POOLINGS)),
        "normalize": Parameter(None, "bool|null"),
        "truncate_dim": Parameter(None, "int|null", least=1),
        "prompt": Parameter(None, "str|null"),
        "prompt_name": Parameter(None, "str|null"),
        **windows.PARAMETERS,
        "tokenize_kwargs": Parameter(None, "dict|null"),
        "return_tensors": Parameter(False, "bool"),  # a column holds neither list nor tensor
    }
    files = staticmethod(read_recipe_files)
    plain = PlainForm(
        declared=plain_feature_extraction(inputs),
        batch_parameters=_make_batch_parameters,
        prompt=_find_prompt,
    )

    @staticmethod
    def check(parameters: Mapping[str, Any]) -> None:
        settings = merge_tokenize_kwargs(parameters)
        windows.check_parameters(settings)
        windows.check_single_texts(settings["truncation"])
        if parameters["prompt"] is not None and parameters["prompt_name"] is not None:
            raise ValueError("prompt and prompt_name are both given: leave one out")

    @staticmethod
    def follow(parameters: Mapping[str, Any], files: Mapping[str, Any]) -> Followed:
        recipe = build_recipe(parameters, files)
        default = build_recipe({**parameters, "prompt": "", "prompt_name": None}, {})
        same = replace(recipe, max_seq_length=None, as_sentence_transformers=False) == default
        limit = find_shorter_limit(recipe, files)
        differs = not same or limit is not None
        text = str(recipe) if limit is None else f"{recipe}; at most {limit} tokens at once"
        return Followed(
            pooling=text,
            weights=tuple(step.folder for step in recipe.steps if hasattr(step, "folder")),
            decides={"pooling": text} if differs else {},
        )

    @staticmethod
    def make(loaded: Loaded) -> FeatureExtraction | StaticFeatureExtraction:
        """Return the task, ready for rows."""
        settings = merge_tokenize_kwargs(loaded.settings(FeatureExtraction.parameters))
        recipe = build_recipe(settings, loaded.files)
        if recipe.static is not None:
            return StaticFeatureExtraction(loaded, recipe)
        return FeatureExtraction(loaded)

    def __init__(self, loaded: Loaded) -> None:
        pipeline = loaded.pipeline
        settings = merge_tokenize_kwargs(loaded.settings(self.parameters))
        self.recipe = recipe = build_recipe(settings, loaded.files)
        prepare_tokenizer(pipeline, recipe)
        settings |= recipe.tokenizing
        shape = find_output_shape(pipeline)
        self.per_token = recipe.poolings == ("none",)
        first_only = recipe.poolings == ("cls",) and not recipe.excludes_prompt
        reads_first = first_only or len(shape) < 3
        self.encoder = make_encoder(loaded, reads="first" if reads_first else "all")
        longest = find_chunk_limit(pipeline, recipe, settings["truncation"])
        limit = min((n for n in (longest, settings["max_length"]) if n), default=None)
        self.window_tokenizer = windows.WindowTokenizer.from_settings(pipeline, limit, settings)
        self.unpooled = (
            count_prompt_tokens(self.window_tokenizer, recipe) if recipe.excludes_prompt else 0
        )
        self.head = EmbeddingHead(recipe, loaded.file)
        self.width = recipe.width(shape[-1])

    @property
    def packed(self) -> bool:
        return self.encoder.is_packed

    def results(self) -> pa.Schema:
        if self.per_token:
            return pa.schema([("embedding", pa.list_(pa.list_(pa.float32())))])
        return pa.schema([("embedding", pa.list_(pa.float32(), self.width))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        prompt = self.recipe.prompt
        chunks = self.window_tokenizer.make_chunks(
            [prompt + text for text in rows["text"].to_pylist()]
        )
        return _append_unpooled(chunks, self.unpooled) if self.unpooled else chunks

    def forward(self, chunks: pa.StructArray) -> Outputs:
        states, lengths = self.encoder(chunks)
        counts = lengths if self.encoder.outputs.reads == "all" else np.ones_like(lengths)
        if self.per_token:
            return to_host_async(states, lambda array: list_token_vectors(self.head(array), counts))
        unpooled = np.zeros_like(counts)
        if self.unpooled and self.encoder.outputs.reads == "all":
            unpooled = np.minimum(chunks.field("unpooled").to_numpy(), counts)
        pooled = pool_stream(states, counts, self.recipe.poolings, unpooled)
        sizes = np.maximum(lengths - unpooled, 1)
        return to_host_async(pooled, lambda array: pair_vectors_with_counts(array, sizes))

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        counts, chunks = pc.list_value_length(outputs).to_numpy(), outputs.flatten()
        if self.per_token:
            tokens = np.concatenate([[0], np.cumsum(pc.list_value_length(chunks).to_numpy())])
            offsets = pa.array(tokens[np.concatenate([[0], np.cumsum(counts)])], pa.int32())
            return pa.table({"embedding": pa.ListArray.from_arrays(offsets, chunks.flatten())})
        vectors = token_chunks.to_matrix(chunks.field("vector"))
        pooled = self._pool_windows(vectors, chunks.field("tokens").to_numpy(), counts)
        pooled = self.head(pooled).astype(np.float32, copy=False)
        values = pa.array(pooled.ravel())
        return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, self.width)})

    def comparison(self, given: Mapping[str, Any]) -> Comparison:
        """Return how plain transformers computes a row. given: the job's parameters."""
        keywords = {
            **_select_tokenizing(given),
            **dict(self.recipe.tokenizing),
            **self.window_tokenizer.truncating,
        }
        return Comparison(
            parameters={"tokenize_kwargs": keywords},
            prompt=self.recipe.prompt,
            can_answer=lambda row: len(self.expand(row)[0]) == 1,
            prepare=lambda pipeline: prepare_tokenizer(pipeline, self.recipe),
            record=self._pool_record,
        )

    def _pool_record(self, record: Values) -> Values:
        """Pool a row's token vectors, as transformers computes them, to its one vector."""
        if "embedding" not in record:
            return record
        vectors = np.array(record["embedding"], dtype=np.float32)
        if self.per_token:
            return {**record, "embedding": self.head(vectors).tolist()}
        vector = pool_and_concatenate(vectors, self.recipe.poolings, self.unpooled)
        return {**record, "embedding": self.head(vector[None].astype(np.float32))[0].tolist()}

    def _pool_windows(self, vectors: np.ndarray, tokens: np.ndarray, counts: np.ndarray) -> Any:
        """Pool the windows' vectors to one for each row.

        A vector has one part for each pooling of the recipe, and each part has its rule.
        """
        parts = np.split(vectors, len(self.recipe.poolings), axis=1)
        rules = (p if p in ("max", "last") else "mean" for p in self.recipe.poolings)
        pooled = [
            pool_windows(part, tokens, counts, rule)
            for part, rule in zip(parts, rules, strict=True)
        ]
        return pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)


def _append_unpooled(chunks: pa.ListArray, tokens: int) -> pa.ListArray:
    """Append the field `unpooled` to chunks: how many of their first tokens are not pooled.

    These are the prompt's, in the first chunk of each row.
    """
    values, offsets = chunks.flatten(), chunks.offsets
    unpooled = np.zeros(len(values), dtype=np.int64)
    unpooled[offsets.to_numpy()[:-1] - offsets[0].as_py()] = tokens
    names = [field.name for field in values.type]
    columns = [*(values.field(name) for name in names), pa.array(unpooled)]
    extended = pa.StructArray.from_arrays(columns, names=[*names, "unpooled"])
    return pa.ListArray.from_arrays(pc.subtract(offsets, offsets[0]), extended)
