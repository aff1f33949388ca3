"""Find out on the model itself whether packed or padded chunks give the answers of each alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..text import model_limits
from .base import Columns, ModelOutputs
from .gpu_attention import find_kernels
from .hidden_states import LastLayer, find_last_layer
from .packed import PackedEngine, PackedModel, PackedWay
from .padded import PaddedEngine

# Of one and of several lengths, one beyond any window of attention.
_LENGTHS = (160, 31, 31, 9, 3, 1)
_BEYOND_A_WINDOW = 32
_WIDEST_WINDOW = 2048  # a probe of more would take too long

# How far answers may be from those of each chunk alone, as a share of how these differ among each
# other: rounding, and nothing else.
_CLOSE = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}


def find_packed_engine(pipeline: Any, outputs: ModelOutputs) -> PackedEngine | None:
    """Return the first engine whose packed answers are right; None if no way gives them.

    It leaves the model packed if there is one, and else as transformers loaded it.
    """
    if model_limits.needs_own_length(pipeline.model):
        return None
    try:
        columns, lengths = _probe(pipeline, outputs)
        expected = _run_each_alone(pipeline, outputs, columns, lengths)
        model = PackedModel(pipeline.model)
    except Exception:  # the model does something else instead of attention as usual
        return None
    for way in _list_ways(pipeline.model, outputs):
        engine = PackedEngine(pipeline, outputs, model, way)
        try:
            got = engine.run(columns, lengths).float()
        except Exception:  # a kernel that is not for this GPU, a layer that needs all tokens
            continue
        if _is_close(pipeline, got, expected):
            return engine
    model.restore()
    return None


def is_padding_exact(pipeline: Any, outputs: ModelOutputs) -> bool:
    """Tell whether the model's answers are the same with padding."""
    if model_limits.needs_own_length(pipeline.model):  # a short chunk might change the model
        return False
    try:
        columns, lengths = _probe(pipeline, outputs)
        expected = _run_each_alone(pipeline, outputs, columns, lengths)
        got = PaddedEngine(pipeline, outputs).run_padded(columns, lengths).float()
    except Exception:  # it does not take the probe: it is not known to be exact
        return False
    return _is_close(pipeline, got, expected)


def make_probe(pipeline: Any) -> tuple[Columns, np.ndarray]:
    """Return random tokens that mean nothing: inputs of shape (tokens,), and the lengths.

    Raises:
        NotImplementedError: the model's attention has too wide a window.
    """
    tokenizer, model = pipeline.tokenizer, pipeline.model
    config, rng = model.config.get_text_config(), np.random.default_rng(0)
    names = ("sliding_window", "attention_chunk_size")
    window = max(getattr(config, name, None) or 0 for name in names)
    if window > _WIDEST_WINDOW:
        raise NotImplementedError(f"a window of {window} tokens is not tried")
    lengths = np.array(_LENGTHS)
    lengths[0] = max(lengths[0], window + _BEYOND_A_WINDOW)
    lengths = np.minimum(lengths, model_limits.count_positions(model) or lengths[0])
    # A tokenizer may know more tokens than the model: on a GPU one such ends the process.
    known = min(len(tokenizer), model.get_input_embeddings().num_embeddings)
    ids = rng.integers(known, size=int(lengths.sum()))
    # To some models the tokens of masks or padding are more than any other token.
    special = [i for i in tokenizer.all_special_ids if i < known][: int(lengths[0]) // 4]
    ids[1 : 1 + len(special)] = special
    columns = {"input_ids": ids}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        types = getattr(config, "type_vocab_size", None) or 1
        columns["token_type_ids"] = rng.integers(min(types, 2), size=len(ids))
    return columns, lengths


def _list_ways(model: Any, outputs: ModelOutputs) -> Iterator[PackedWay]:
    """Yield what may be tried, the fastest first."""
    table = model_limits.find_position_table(model)
    index = None if table is None else table.padding_idx
    kernels = (*find_kernels(model), None)
    heads = list(_list_heads(model, outputs))
    for kernel, (last, pads_head), padding in product(kernels, heads, dict.fromkeys((index, None))):
        yield PackedWay(kernel=kernel, last_layer=last, pads_head=pads_head, padding_index=padding)


def _list_heads(model: Any, outputs: ModelOutputs) -> Iterator[tuple[LastLayer | None, bool]]:
    """Yield how the head may get what it reads, the cheapest first.

    The last layer without the other tokens; all layers with all tokens; whole chunks, for a head
    that looks at all of their tokens.
    """
    last = None if outputs.reads == "all" else find_last_layer(model)
    if last is not None:
        yield last, False
    yield None, False
    if outputs.reads == "first":
        yield None, True


def _probe(pipeline: Any, outputs: ModelOutputs) -> tuple[Columns, np.ndarray]:
    columns, lengths = make_probe(pipeline)
    if outputs.reads == "masks":
        columns["input_ids"][::2] = pipeline.tokenizer.mask_token_id
    return columns, lengths


def _run_each_alone(
    pipeline: Any, outputs: ModelOutputs, columns: Columns, lengths: np.ndarray
) -> Any:
    engine = PaddedEngine(pipeline, outputs)
    return engine.run_by_length(columns, lengths, together=False).float()


def _is_close(pipeline: Any, got: Any, expected: Any) -> bool:
    if got.shape != expected.shape:  # not even one for each chunk
        return False
    close = _CLOSE.get(str(pipeline.model.dtype).removeprefix("torch."), 0)
    return bool((got - expected).norm() <= close * (expected - expected.mean(dim=0)).norm())
