"""A model on one stream of tokens: chunks one after the other, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import Columns, Engine, ModelOutputs
from .model_call import ModelCall, select_first_tokens
from .onednn.linears import prepack_linears
from .packed_attention import install_packed_attention, packed_lengths
from .padded import is_mostly_padding, pad, split_in_half
from .token_stream import packed_inputs, select_tokens, unpack_hidden_states

if TYPE_CHECKING:
    from .gpu_attention import Kernel
    from .hidden_states import LastLayer
    from .packed_attention import SelectedTokens


@dataclass(frozen=True, kw_only=True)
class PackedWay:
    """How a model runs on a stream. Which ways give its answers is found out by trying them.

    Attributes:
        kernel: computes the attention on a GPU; None for dense attention by length.
        last_layer: the layer that leaves out the tokens that the head does not read, if any does.
        pads_head: whether the head, which looks at all tokens of a chunk, gets padded chunks.
        padding_index: where positions are counted from, see `token_stream.list_positions`.
    """

    kernel: Kernel | None = None
    last_layer: LastLayer | None = None
    pads_head: bool = False
    padding_index: int | None = None


class PackedModel:
    """A model whose attention keeps the chunks of a stream apart, and its faster linear layers.

    Making it changes the model; `as_loaded` and `restore` undo that.

    Raises:
        NotImplementedError: the model's code does not let its attention be exchanged.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._usual = install_packed_attention(model)
        self._packed = model.config._attn_implementation
        self.linears = prepack_linears(model)
        self.linears.use()

    def restore(self) -> None:
        """Make the model what it was when transformers loaded it."""
        self.model.set_attn_implementation(self._usual)
        self.linears.leave()

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """Restore the model inside the block."""
        self.restore()
        try:
            yield
        finally:
            self.model.set_attn_implementation(self._packed)
            self.linears.use()


class PackedEngine(Engine):
    """Runs a packed model in one way."""

    is_packed, is_exact = True, False

    def __init__(
        self, pipeline: Any, outputs: ModelOutputs, model: PackedModel, way: PackedWay
    ) -> None:
        self.pipeline, self.outputs, self.model, self.way = pipeline, outputs, model, way
        self._call = ModelCall(pipeline, outputs)

    @property
    def kernel(self) -> Kernel | None:
        """What computes the attention on a GPU."""
        return self.way.kernel

    def as_loaded(self) -> AbstractContextManager[None]:
        return self.model.as_loaded()

    def release(self) -> None:
        self.model.restore()

    def run(self, columns: Columns, lengths: np.ndarray) -> Any:
        if self.way.pads_head:
            return self._run_with_padded_head(columns, lengths)
        inputs, longer = self._make_inputs(columns, lengths)
        places = np.cumsum(lengths) - lengths
        if self.outputs.reads == "masks":
            mask = self.pipeline.tokenizer.mask_token_id
            places = np.flatnonzero(columns["input_ids"] == mask)
        with (
            self._select(places) as selected,
            packed_lengths(longer, selected, self.way.kernel),
        ):
            output = self._call(inputs)
        if self.outputs.reads == "first":
            return select_first_tokens(output)
        return output[0][: lengths.sum()]

    def _run_with_padded_head(self, columns: Columns, lengths: np.ndarray) -> Any:
        import torch

        if is_mostly_padding(lengths):
            halves = split_in_half(columns, lengths)
            return torch.cat([self._run_with_padded_head(*half) for half in halves])
        inputs, longer = self._make_inputs(columns, lengths)
        padded, here = pad(columns, lengths, self.pipeline.tokenizer)
        with (
            unpack_hidden_states(self.pipeline.model, self._call.tensors(inputs), here),
            packed_lengths(longer, kernel=self.way.kernel),
        ):
            return select_first_tokens(self._call(padded))

    def _make_inputs(self, columns: Columns, lengths: np.ndarray) -> tuple[Columns, np.ndarray]:
        # oneDNN makes a kernel for each new number of tokens: there are to be few of them.
        rounds = bool(self.model.linears.forwards)
        return packed_inputs(columns, lengths, self.way.padding_index, rounds)

    def _select(self, places: np.ndarray) -> AbstractContextManager[SelectedTokens | None]:
        if self.outputs.reads == "all":
            return nullcontext()
        is_first = self.outputs.reads == "first"
        return select_tokens(self.pipeline.model, places, is_first, self.way.last_layer)
