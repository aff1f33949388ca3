"""feature-extraction with static embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.task import Column, Loaded

from ..text.token_chunks import build_from_stream, to_matrix, to_vector_array
from .embedding_head import EmbeddingHead
from .embedding_recipe import EmbeddingRecipe
from .static_model import StaticModel


class StaticFeatureExtraction:
    """The mean of the static embeddings of each text's tokens, and the folder's steps after it."""

    name = "feature-extraction"
    inputs = (Column(name="text", kind="text"),)
    # To find equal texts takes longer than to add up their vectors.
    repeats = False
    packed = True

    def __init__(self, loaded: Loaded, recipe: EmbeddingRecipe) -> None:
        self.model: StaticModel = loaded.pipeline
        self.prompt = recipe.prompt
        self.max_length = self.model.find_max_length(recipe.static or self.model.folder)
        self.head = EmbeddingHead(recipe, loaded.file)
        self.width = recipe.width(self.model.table.shape[1])

    def results(self) -> pa.Schema:
        return pa.schema([("embedding", pa.list_(pa.float32(), self.width))])

    def expand(self, rows: pa.Table) -> pa.ListArray:
        texts = rows["text"].combine_chunks()
        if self.prompt:
            texts = pc.binary_join_element_wise(self.prompt, texts, "")
        tokens = self.model.tokenize(texts, self.max_length)
        lost = None if self.max_length is None else tokens.lost
        chunks = build_from_stream({"input_ids": tokens.ids}, tokens.counts, False, lost)
        return make_lists(chunks, np.ones_like(tokens.counts))

    def forward(self, chunks: pa.StructArray) -> pa.Array:
        ids = chunks.field("input_ids").flatten().to_numpy()
        return to_vector_array(self.model.average(ids, chunks.field("size").to_numpy()))

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        vectors = self.head(to_matrix(outputs.flatten())).astype(np.float32, copy=False)
        values = pa.array(vectors.ravel())
        return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, self.width)})
