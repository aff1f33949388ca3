"""A declared task whose chunks and outputs are columns of tokens, made for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.device_transfer import Outputs, to_host_async

from ..text import model_limits, token_chunks
from ..text.word_table import is_plain_tokenizer

if TYPE_CHECKING:
    from .pipeline_adapter import PipelineAdapter


def knows_pipeline(adapter: PipelineAdapter, pipeline_class: Any) -> bool:
    """Tell whether a task runs a pipeline of just this class on texts as they are."""
    return (
        type(adapter.pipeline) is pipeline_class
        and adapter.encoder is not None
        and is_plain_tokenizer(adapter.pipeline.tokenizer)
        and not adapter.declared.any_parameter
        and adapter.loaded.schema is None
    )


class TokenColumns:
    """What tasks have in common that do without the dictionaries of their pipeline.

    A task defines `expand_each` and `regroup`, as `LoadedTask` has them.

    Attributes:
        kept: fields of chunks that their outputs have, too, beside `logits`.
        adapter: does the same with the pipeline, row by row.
    """

    kept: ClassVar[tuple[str, ...]]
    schedules = False

    def __init__(self, adapter: PipelineAdapter) -> None:
        assert adapter.encoder is not None, "only for models that answer by token"
        self.adapter, self.encoder, self.pipeline = adapter, adapter.encoder, adapter.pipeline
        self.name, self.inputs, self.repeats = adapter.name, adapter.inputs, adapter.repeats
        self.explain_failure = adapter.explain_failure
        _, _, self.keywords = adapter.keywords.of("{}")

    @property
    def packed(self) -> bool:
        return self.encoder.is_packed

    def results(self) -> pa.Schema:
        return self.adapter.results()

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        raise NotImplementedError

    def expand(self, rows: pa.Table) -> pa.ListArray:
        lists, failed = self.expand_each(rows)
        for error in failed.values():
            raise error
        return lists

    def leave_out_long(self, lists: pa.ListArray) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the chunks of rows that the model has positions for, and the others' errors."""
        sizes, limit = lists.flatten().field("size").to_numpy(), self.adapter.limit
        if limit is None or sizes.max(initial=0) <= limit:
            return lists, {}
        rows, advice = pc.list_parent_indices(lists).to_numpy(), "cut or shorten the text"
        failed: dict[int, BaseException] = {}
        for i in np.flatnonzero(sizes > limit).tolist():
            error = model_limits.explain_token_count(int(sizes[i]), limit, advice)
            failed.setdefault(int(rows[i]), error)
        return lists.take(pa.array(np.setdiff1d(np.arange(len(lists)), list(failed)))), failed

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, counts = self.compute(chunks)
        return self.gather(chunks, counts, {"logits": logits})

    def compute(self, chunks: pa.StructArray) -> tuple[Any, np.ndarray]:
        """Return what the model says to each token that is read, and how many a chunk has."""
        logits, lengths = self.encoder(chunks, token_chunks.INPUTS)
        if self.encoder.outputs.reads == "all":
            return logits, lengths
        ids = chunks.field("input_ids").flatten().to_numpy()
        masks = ids == self.pipeline.tokenizer.mask_token_id
        return logits, np.add.reduceat(masks, np.cumsum(lengths) - lengths, dtype=np.int64)

    def gather(self, chunks: pa.StructArray, counts: np.ndarray, found: dict[str, Any]) -> Outputs:
        """Return the outputs of chunks: what is kept of them, and what was found for each token.

        Args:
            chunks: those of a micro-batch.
            counts: tokens that are read, of each chunk.
            found: tensors by name, of shape (tokens that are read, width).
        """
        import torch

        fields = [chunks.field(name) for name in self.kept]
        widths = np.cumsum([tensor.shape[1] for tensor in found.values()])[:-1]

        def convert(array: np.ndarray) -> pa.StructArray:
            several = np.split(array, widths, axis=1)
            vectors = [token_chunks.to_vector_array(values) for values in several]
            lists = [make_lists(one, counts) for one in vectors]
            return pa.StructArray.from_arrays([*fields, *lists], names=[*self.kept, *found])

        tensors = [tensor.float() for tensor in found.values()]
        return to_host_async(torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0], convert)
