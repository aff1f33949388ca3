"""A text model over a micro-batch of chunks: packed where that gives the same, else padded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pipemill.actors.packed import exchange_attention, stream_of

# Of the probe: sequences of one and of several lengths, one beyond any window of attention.
_LENGTHS = (160, 31, 31, 9, 3)
_CLOSE = {"float32": 2e-5, "float64": 2e-5, "bfloat16": 5e-2, "float16": 5e-3}


class Encoder:
    """Runs a pipeline's model. Packed and padded are compared once, on the model itself.

    whole: whether the model has one output per chunk (a classifier's logits), rather than one
        per token.
    """

    def __init__(self, pipeline: Any, whole: bool) -> None:
        self.pipeline, self.whole = pipeline, whole
        self.first_position = 0

    def __call__(self, chunks: pa.StructArray) -> tuple[Any, np.ndarray]:
        """The model's first output, and each chunk's length in tokens.

        Of shape (chunks, width), or (tokens of all chunks, width): without padding.
        """
        lengths = chunks.field("size").to_numpy().copy()  # torch wants an array it may write to
        columns = {
            name: chunks.field(name).flatten().to_numpy().astype(np.int64)
            for name in self.pipeline.tokenizer.model_input_names
            if chunks.type.get_field_index(name) >= 0
        }
        run = self._packed if self.packed else self._padded
        return run(columns, lengths), lengths

    @cached_property
    def packed(self) -> bool:
        """Whether the model's answers are the same without padding."""
        if self.pipeline.device.type == "meta":
            return False
        model, (columns, lengths) = self.pipeline.model, self._probe()
        close = _CLOSE.get(str(model.dtype).removeprefix("torch."), 0)
        try:
            expected = self._padded(columns, lengths).float()
            self.usual = exchange_attention(model)
        except Exception:  # whatever this model does instead of attention as usual
            return False
        # RoBERTa and its kin count positions from behind the padding's.
        for first in (0, (self.pipeline.tokenizer.pad_token_id or 0) + 1):
            self.first_position = first
            try:
                got = self._packed(columns, lengths).float()
            except Exception:
                continue
            if (got - expected).abs().max() <= close * expected.abs().max().clamp(min=1):
                return True
        model.set_attn_implementation(self.usual)
        return False

    @contextmanager
    def padding(self) -> Iterator[None]:
        """Within it chunks are padded, and the model's attention is its usual one."""
        packed, model = self.packed, self.pipeline.model
        if packed:
            exchanged = model.config._attn_implementation
            model.set_attn_implementation(self.usual)
        self.packed = False
        try:
            yield
        finally:
            self.packed = packed
            if packed:
                model.set_attn_implementation(exchanged)

    def _probe(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Random tokens that mean nothing, in sequences of several lengths."""
        from .text_encoder import positions

        tokenizer = self.pipeline.tokenizer
        longest = positions(self.pipeline.model) or max(_LENGTHS)
        lengths = np.minimum(_LENGTHS, longest)
        plain = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
        ids = np.random.default_rng(0).choice(plain if len(plain) else [0], int(lengths.sum()))
        columns = {"input_ids": ids}
        if "token_type_ids" in tokenizer.model_input_names:
            columns["token_type_ids"] = np.zeros_like(ids)
        return columns, lengths

    def _padded(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        import torch

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
        return output if self.whole else output[torch.from_numpy(here).to(output.device)]

    def _packed(self, columns: dict[str, np.ndarray], lengths: np.ndarray) -> Any:
        starts = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
        inputs = {name: values[None] for name, values in columns.items()}
        inputs["position_ids"] = (places + self.first_position)[None]
        with stream_of(lengths), self._first_tokens(starts):
            output = self._run(inputs)
        return output if self.whole else output[0]

    @contextmanager
    def _first_tokens(self, starts: np.ndarray) -> Iterator[None]:
        """Within it a classifier's head, or a pooler, sees each chunk's first token alone.

        That is all that most of them look at, and of a stream they would see only the very first.
        """
        if not self.whole:
            yield
            return
        import torch

        base = self.pipeline.model.base_model
        first = torch.from_numpy(starts).to(self.pipeline.device)

        def gathered(states: Any) -> Any:
            return states[0, first][:, None]  # (chunks, 1, width)

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
            name: torch.from_numpy(values).to(pipeline.device, non_blocking=True)
            for name, values in inputs.items()
        }
        if "use_cache" in inspect.signature(pipeline.model.forward).parameters:
            tensors["use_cache"] = False
        with torch.inference_mode(), pipeline.device_placement():
            return pipeline.model(**tensors)[0]
