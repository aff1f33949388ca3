"""A text model over a micro-batch of chunks: packed where that gives the same, else padded."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.on_host import on_device
from pipemill.actors.packed import exchange_attention, stream_of
from pipemill.actors.prepacked import Prepacked, prepack

from . import text_encoder
from .packing_probe import probe

# How far packed answers may be from the padded ones, as a share of how these differ among each
# other: rounding, and nothing else.
_CLOSE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}

# Streams are of a multiple of so many tokens where each new length costs something.
_STEP = 16


class Encoder:
    """Runs a pipeline's model. Packed and padded are compared once, on the model itself.

    reads: which tokens the model's head reads, and has an output for: each chunk's "first" (a
        classifier's), "all", or its "masks".
    outputs: names of the model's outputs, which are stacked on the last axis; () for its first.
    linears: layers of a packed model that have a faster product on this CPU.
    """

    def __init__(self, pipeline: Any, reads: str, outputs: tuple[str, ...] = ()) -> None:
        self.pipeline, self.reads, self.outputs = pipeline, reads, outputs
        self._padding_index: int | None = None
        self._lock = threading.Lock()
        self._verdict: bool | None = None
        self.linears = Prepacked([])

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
        return (self._packed if self.packed else self._padded)(columns, lengths)

    @property
    def packed(self) -> bool:
        """Whether the model's answers are the same without padding; tried when first asked."""
        with self._lock:
            if self._verdict is None:
                self._verdict = self._packs()
            return self._verdict

    def _packs(self) -> bool:
        model = self.pipeline.model
        if self.pipeline.device.type == "meta" or text_encoder.needs_own_length(model):
            return False
        close = _CLOSE.get(str(model.dtype).removeprefix("torch."), 0)
        try:
            columns, lengths = probe(self.pipeline)
            if self.reads == "masks":
                columns["input_ids"][::2] = self.pipeline.tokenizer.mask_token_id
            expected = self._one_by_one(columns, lengths)
            self.usual = exchange_attention(model)
        except Exception:  # whatever this model does instead of attention as usual
            return False
        self.linears = prepack(model)
        self.linears.use()
        table = text_encoder.position_table(model)
        index = None if table is None else table.padding_idx
        for self._padding_index in dict.fromkeys((index, None)):
            try:
                got = self._packed(columns, lengths).float()
            except Exception:
                continue
            if (got - expected).norm() <= close * (expected - expected.mean(dim=0)).norm():
                return True
        self._as_loaded()
        return False

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
        self._verdict = False
        try:
            yield
        finally:
            self._verdict = packed
            if packed:
                model.set_attn_implementation(exchanged)
                self.linears.use()

    def unpack(self) -> None:
        """Gives packing up for good."""
        if self.packed:
            self._as_loaded()
        self._verdict = False

    def _one_by_one(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        """Each sequence alone, as the model was made for."""
        import torch

        ends = np.cumsum(lengths)
        answers = [
            self._padded({name: v[end - n : end] for name, v in columns.items()}, np.array([n]))
            for end, n in zip(ends, lengths, strict=True)
        ]
        return torch.cat(answers).float()

    def _padded(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        tokenizer = self.pipeline.tokenizer
        here = np.arange(lengths.max(initial=0)) < lengths[:, None]
        inputs = {}
        for name, values in columns.items():
            fill = tokenizer.pad_token_id if name == "input_ids" else 0
            inputs[name] = np.full(here.shape, fill or 0, dtype=np.int64)
            inputs[name][here] = values
        if "attention_mask" in tokenizer.model_input_names:
            inputs["attention_mask"] = here.astype(np.int64)
        output = self._run(inputs)
        if self.reads == "first":
            return output
        if self.reads == "masks":
            here &= inputs["input_ids"] == tokenizer.mask_token_id
        # Where they are, not whether: of a mask the host would ask the device how many.
        return output.flatten(0, 1)[on_device(np.flatnonzero(here), output.device)]

    def _packed(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        tokens = int(lengths.sum())
        places = np.cumsum(lengths) - lengths
        if self.reads == "masks":
            places = np.flatnonzero(columns["input_ids"] == self.pipeline.tokenizer.mask_token_id)
        if self.linears.forwards:
            columns, lengths = _rounded_up(columns, lengths)
        starts = np.cumsum(lengths) - lengths
        inputs = {name: values[None] for name, values in columns.items()}
        inputs["position_ids"] = self._positions(columns["input_ids"], starts, lengths)[None]
        with stream_of(lengths), self._read_at(places):
            output = self._run(inputs)
        return output if self.reads == "first" else output[0][:tokens]

    def _positions(self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Of each token in its sequence, shape (tokens,).

        RoBERTa and its kin count from behind the padding's, and do not count the padding's token.
        """
        if self._padding_index is None:
            return np.arange(len(ids)) - np.repeat(starts, lengths)
        counts = ids != self._padding_index
        before = np.concatenate([[0], np.cumsum(counts)])
        within = before[1:] - np.repeat(before[starts], lengths)
        return np.where(counts, within, 0) + self._padding_index

    @contextmanager
    def _read_at(self, places: np.ndarray) -> Iterator[None]:
        """Within it the model's head sees these tokens of the stream, where it does not see all.

        A classifier's, or a pooler, looks at the first token of what it is given, and of a stream
        would see only the very first: it is given each chunk's own.
        """
        if self.reads == "all":
            yield
            return
        base = self.pipeline.model.base_model
        index = on_device(places, self.pipeline.device)

        def gathered(states: Any) -> Any:
            states = states[0, index]
            # Several rows of one token, or one row of several.
            return states[:, None] if self.reads == "first" else states[None]

        def after(module: Any, args: Any, output: Any) -> Any:
            output[0 if isinstance(output, list) else "last_hidden_state"] = gathered(output[0])
            return output

        hooks = [base.register_forward_hook(after)]
        if (pooler := getattr(base, "pooler", None)) is not None:
            hooks.append(
                pooler.register_forward_pre_hook(lambda m, args: (gathered(args[0]), *args[1:]))
            )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _run(self, inputs: dict[str, np.ndarray]) -> Any:
        import torch

        pipeline = self.pipeline
        tensors: dict[str, Any] = {
            name: on_device(values, pipeline.device) for name, values in inputs.items()
        }
        if "use_cache" in inspect.signature(pipeline.model.forward).parameters:
            tensors["use_cache"] = False
        with torch.inference_mode(), pipeline.device_placement():
            found = pipeline.model(**tensors)
            if not self.outputs:
                return found[0]
            several = [found[name] for name in self.outputs]
            return torch.stack(several, dim=-1) if len(several) > 1 else several[0]


def _rounded_up(
    columns: dict[str, np.ndarray], lengths: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The stream with a few tokens more that nobody reads, so that there are few lengths of it."""
    missing, longest = int(-lengths.sum() % _STEP), int(lengths.max())
    if not missing:
        return columns, lengths
    # None of them is longer than a sequence that the model takes.
    more = [longest] * (missing // longest) + [missing % longest] * bool(missing % longest)
    filled = {
        name: np.append(values, np.repeat(values[:1], missing)) for name, values in columns.items()
    }
    return filled, np.append(lengths, more)
