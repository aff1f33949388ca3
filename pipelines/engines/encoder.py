"""A text model over a micro-batch of chunks: packed where that gives the same, else padded."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.device_transfer import to_device

from ..text import model_limits
from .attention_kernels import Kernel, find_kernels
from .compiled import Compiled
from .hidden_states import LastLayer, find_last_layer
from .onednn_linear import PrepackedLinears, prepack_linears
from .packing_probe import make_probe
from .padded import is_mostly_padding, pad, split_in_half
from .token_stream import packed_inputs, select_tokens, unpack_hidden_states
from .varlen_attention import SelectedTokens, install_packed_attention, packed_lengths, runs

# How far packed answers may be from the padded ones, as a share of how these differ among each
# other: rounding, and nothing else.
_CLOSE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}


class Encoder:
    """Runs a pipeline's model. Packed and padded are compared once, on the model itself.

    reads: which tokens the model's head reads, and has an output for: each chunk's "first" (a
        classifier's), "all", or its "masks".
    outputs: names of the model's outputs, which are stacked on the last axis; () for its first.
    compiles: whether the model is compiled, and then padded to a few widths instead of packed.
    kernel: what computes a packed model's attention on a GPU; None elsewhere, and where none does.
    linears: layers of a packed model that have a faster product on this CPU.
    """

    def __init__(
        self, pipeline: Any, reads: str, outputs: tuple[str, ...] = (), compiles: bool = False
    ) -> None:
        self.pipeline, self.reads, self.outputs = pipeline, reads, outputs
        self.compiled = Compiled(pipeline.model) if compiles else None
        self._padding_index: int | None = None
        self._last: LastLayer | None = None
        self._spreads = False
        self.kernel: Kernel | None = None
        self._lock = threading.Lock()
        self._verdict: bool | None = None
        self._pads: bool | None = None
        self.linears = PrepackedLinears([])
        self._rows = model_limits.count_embedding_rows(pipeline.model)

    def __call__(self, chunks: pa.StructArray) -> tuple[Any, np.ndarray]:
        """The model's output for each token that is read, and each chunk's length in tokens.

        Of shape (tokens read of all chunks, width): without padding.
        """
        lengths = chunks.field("size").to_numpy().copy()  # torch wants an array it may write to
        columns = {
            name: chunks.field(name).flatten().to_numpy().astype(np.int64)
            for name in self.pipeline.tokenizer.model_input_names
            if chunks.type.get_field_index(name) >= 0
        }
        return self.run(columns, lengths), lengths

    def run(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        """The same of chunks one after the other, each of `columns` of shape (tokens,)."""
        if lengths.min(initial=1) < 1:
            raise ValueError("the text has no tokens")
        model_limits.check_token_ids(columns.get("input_ids", lengths[:0]), self._rows)
        if self.packed:
            return self._packed(columns, lengths)
        if self.compiled is not None and self.pads:
            return self._padded(columns, lengths, self.compiled.width(int(lengths.max())))
        if (lengths == lengths[0]).all() or self.pads:
            return self._padded(columns, lengths)
        return self._by_length(columns, lengths)

    @property
    def packed(self) -> bool:
        """Whether the model's answers are the same without padding; tried when first asked."""
        with self._lock:
            if self._verdict is None:
                self._verdict = self._packs()
            return self._verdict

    def _packs(self) -> bool:
        model = self.pipeline.model
        if self.pipeline.device.type == "meta" or self.compiled is not None:
            return False
        if model_limits.needs_own_length(model):
            return False
        try:
            columns, lengths = self._probe()
            expected = self._by_length(columns, lengths, together=False).float()
            self.usual = install_packed_attention(model)
        except Exception:  # whatever this model does instead of attention as usual
            return False
        self.linears = prepack_linears(model)
        self.linears.use()
        table = model_limits.find_position_table(model)
        index = None if table is None else table.padding_idx
        kernels = (*find_kernels(model), None)
        ways = product(kernels, self._ways(), dict.fromkeys((index, None)))
        for self.kernel, (self._last, self._spreads), self._padding_index in ways:
            try:
                got = self._packed(columns, lengths).float()
            except Exception:
                continue
            if self._is_close(got, expected):
                return True
        self._as_loaded()
        return False

    def _ways(self) -> Iterator[tuple[LastLayer | None, bool]]:
        """How the head gets what it reads, the cheapest first: the last layer without the other
        tokens; all layers with all; whole chunks, for a head that looks at all of their tokens."""
        last = None if self.reads == "all" else find_last_layer(self.pipeline.model)
        if last is not None:
            yield last, False
        yield None, False
        if self.reads == "first":
            yield None, True

    def _probe(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        columns, lengths = make_probe(self.pipeline)
        if self.reads == "masks":
            columns["input_ids"][::2] = self.pipeline.tokenizer.mask_token_id
        return columns, lengths

    def _is_close(self, got: Any, expected: Any) -> bool:
        close = _CLOSE.get(str(self.pipeline.model.dtype).removeprefix("torch."), 0)
        return bool((got - expected).norm() <= close * (expected - expected.mean(dim=0)).norm())

    @property
    def pads(self) -> bool:
        """Whether the model's answers are the same with padding; tried when first asked.

        MobileBERT looks at a token's neighbours, CANINE at a number of characters at a time.
        """
        if self._pads is None:
            try:
                columns, lengths = self._probe()
                alone = self._by_length(columns, lengths, together=False).float()
                self._pads = self._is_close(self._padded(columns, lengths).float(), alone)
            except Exception:  # whatever it does not take of the probe: it is not known to pad
                self._pads = False
        return self._pads

    def _as_loaded(self) -> None:
        self.pipeline.model.set_attn_implementation(self.usual)
        self.linears.leave()

    @contextmanager
    def padding(self) -> Iterator[None]:
        """Within it chunks are padded, and the model is as transformers loaded it."""
        packed, model = self.packed, self.pipeline.model
        if packed:
            exchanged = model.config._attn_implementation
            self._as_loaded()
        self._verdict, compiled, self.compiled = False, self.compiled, None
        try:
            yield
        finally:
            self._verdict, self.compiled = packed, compiled
            if packed:
                model.set_attn_implementation(exchanged)
                self.linears.use()

    def unpack(self) -> None:
        """Gives packing up for good."""
        if self.packed:
            self._as_loaded()
        self._verdict = False

    def _by_length(
        self, columns: dict[str, np.ndarray], lengths: np.ndarray, together: bool = True
    ) -> Any:
        """Sequences of equal length at once, or each alone, as the model was made for."""
        import torch

        answers = []
        for start, count, length in runs(lengths):
            each = count if together else 1
            for first in range(start, start + count * length, each * length):
                some = {name: v[first : first + each * length] for name, v in columns.items()}
                answers.append(self._padded(some, np.full(each, length)))
        return torch.cat(answers)

    def _padded(
        self, columns: dict[str, np.ndarray], lengths: np.ndarray, width: int | None = None
    ) -> Any:
        """width: to how many tokens, for the compiled model; None for the longest chunk's."""
        inputs, here = pad(columns, lengths, self.pipeline.tokenizer, width)
        output = self._run(inputs, compiled=width is not None)
        if self.reads == "first":
            return _firsts(output)
        if output.shape[:2] != here.shape:  # as of Perceiver, whatever the text's length
            raise ValueError(f"the model has {tuple(output.shape[:2])} outputs for {here.shape}")
        if self.reads == "masks":
            here &= inputs["input_ids"] == self.pipeline.tokenizer.mask_token_id
        # Where they are, not whether: of a mask the host would ask the device how many.
        return output.flatten(0, 1)[to_device(np.flatnonzero(here), output.device)]

    def _packed(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        import torch

        if self._spreads and is_mostly_padding(lengths):
            return torch.cat([self._packed(*half) for half in split_in_half(columns, lengths)])
        rounds = bool(self.linears.forwards)
        inputs, longer = packed_inputs(columns, lengths, self._padding_index, rounds)
        if self._spreads:
            padded, here = pad(columns, lengths, self.pipeline.tokenizer)
            tensors = self._tensors(inputs)
            with (
                unpack_hidden_states(self.pipeline.model, tensors, here),
                packed_lengths(longer, kernel=self.kernel),
            ):
                return _firsts(self._run(padded))
        places = np.cumsum(lengths) - lengths
        if self.reads == "masks":
            places = np.flatnonzero(columns["input_ids"] == self.pipeline.tokenizer.mask_token_id)
        with self._read_at(places) as asked, packed_lengths(longer, asked, self.kernel):
            output = self._run(inputs)
        return _firsts(output) if self.reads == "first" else output[0][: lengths.sum()]

    def _read_at(self, places: np.ndarray) -> AbstractContextManager[SelectedTokens | None]:
        if self.reads == "all":
            return nullcontext()
        return select_tokens(self.pipeline.model, places, self.reads == "first", self._last)

    def _tensors(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: to_device(values, self.pipeline.device) for name, values in inputs.items()}

    def _run(self, inputs: dict[str, np.ndarray], compiled: bool = False) -> Any:
        import torch

        pipeline, tensors = self.pipeline, self._tensors(inputs)
        if "use_cache" in inspect.signature(pipeline.model.forward).parameters:
            tensors["use_cache"] = False
        with torch.inference_mode(), pipeline.device_placement():
            model = self.compiled if compiled and self.compiled else pipeline.model
            found = model(**tensors)
            if not self.outputs:
                return found[0]
            several = [found[name] for name in self.outputs]
            return torch.stack(several, dim=-1) if len(several) > 1 else several[0]


def _firsts(output: Any) -> Any:
    """A row for each chunk: a model without a head has one for each of its tokens."""
    return output[:, 0] if output.dim() > 2 else output
