"""Let a graph compute in place of a loaded model: `model.forward` becomes a call of the graph."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .graph_cache import digest_graph, find_graph
from .runtime import GraphRuntime, RunGraph, Traced

Call = dict[str, Any]  # the keywords of one call of the model

# Micro-batches of the first rows that are kept: to calibrate with, and to compare.
_MOST_CALLS, _COMPARED = 100, 4
# How far a graph in float32 may be from the model, as a share of the largest output.
_CLOSE = 1e-3


class GraphError(ValueError):
    """The engine can't run this model. The message says why, and what to do."""


@contextmanager
def record_calls(model: Any) -> Iterator[list[Call]]:
    """Record the keywords of the calls of a model inside the block."""
    calls: list[Call] = []
    forward = model.forward

    @functools.wraps(forward)
    def recorded(*args: Any, **keywords: Any) -> Any:
        if not args and len(calls) < _MOST_CALLS:
            calls.append(keywords)
        return forward(*args, **keywords)

    model.forward = recorded
    try:
        yield calls
    finally:
        del model.forward


@dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """How a graph computes.

    Attributes:
        runtime: the library.
        dtype: one of the runtime's.
        threads: of the calling process.
    """

    runtime: GraphRuntime
    dtype: str
    threads: int


def install_graph(model: Any, calls: list[Call], settings: GraphSettings) -> None:
    """Export a model, or find its graph in the cache, and call it from now on.

    Args:
        model: a model of transformers, in float32 on the CPU.
        calls: as `record_calls` records them, of the job's first rows.
        settings: which library computes, and how.

    Raises:
        GraphError: the model can't be exported, or its graph gives other answers.
    """
    runtime, name = settings.runtime, type(model).__name__
    calls = [call for call in calls if call.keys() == calls[0].keys()]
    if not calls:
        raise GraphError(f"the engine {runtime.name} (model.engine) has no row to try {name} with")
    traced, output_type = _trace(model, calls)
    calibrates = runtime.calibrates(settings.dtype)
    # One graph serves several dtypes that are chosen when it is loaded.
    kind = "int8" if settings.dtype == "int8" else "float32"
    arrays = [array for example in traced.examples for array in example] if calibrates else []
    says = [runtime.name, kind, traced.names, traced.outputs, traced.free_axes]
    key = digest_graph(model, says, runtime.modules, arrays)

    def build(folder: Path) -> None:
        try:
            with _quiet():
                runtime.export(traced, folder)
                _compare(traced, runtime.load(folder, "float32", settings.threads))
                runtime.reduce(traced, folder, settings.dtype)
        except GraphError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise GraphError(
                f"{name} can't be exported for the engine {runtime.name} (model.engine): "
                f"{type(error).__name__}: {reason}. Leave model.engine out"
            ) from error

    folder = find_graph(f"{runtime.name}-{kind}-{key}", build)
    run = runtime.load(folder, settings.dtype, settings.threads)
    model.forward = _make_forward(model.forward, traced, run, output_type)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what exporters print: bars and notes on their own code, some of it to stdout."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield


def _trace(model: Any, calls: list[Call]) -> tuple[Traced, Any]:
    """Return the model with its inputs, and the class of its output."""
    import torch

    tensors = [{n: v for n, v in call.items() if torch.is_tensor(v)} for call in calls]
    # Traced with several rows: with one, their number would be taken for a constant.
    several = next((i for i, one in enumerate(tensors) if len(next(iter(one.values()))) > 1), 0)
    names = tuple(tensors[0])
    fixed = {n: v for n, v in calls[0].items() if n not in names}
    with torch.inference_mode():
        found = model(**tensors[several], **fixed)
    outputs = tuple(n for n, v in found.items() if torch.is_tensor(v))
    examples = [[one[name].cpu().numpy() for name in names] for one in tensors]
    examples.insert(0, examples.pop(several))
    if len(examples[0][0]) == 1:
        examples[0] = [np.repeat(array, 2, axis=0) for array in examples[0]]
    traced = Traced(
        module=_make_module(model, names, outputs, fixed),
        names=names,
        outputs=outputs,
        examples=examples,
        free_axes=[_find_free_axes([one[i] for one in examples]) for i in range(len(names))],
    )
    return traced, type(found)


def _make_module(model: Any, names: tuple[str, ...], outputs: tuple[str, ...], fixed: Call) -> Any:
    """Return the model as a module that takes and returns tensors only."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            found = self.model(**dict(zip(names, tensors, strict=True)), **fixed)
            return tuple(found[name] for name in outputs)

    return Positional().eval()


def _find_free_axes(arrays: list[np.ndarray]) -> tuple[int, ...]:
    """Return the axes of one input that may have any length: all of token ids, else what varies."""
    array = arrays[0]
    if array.dtype.kind in "iub":
        return tuple(range(array.ndim))
    varying = [a for a in range(1, array.ndim) if len({one.shape[a] for one in arrays}) > 1]
    return (0, *varying)


def _compare(traced: Traced, run: RunGraph) -> None:
    """Raise GraphError for a graph in float32 whose answers are not those of the model."""
    import torch

    longest_first = sorted(traced.examples, key=lambda example: -example[0].size)
    step = max(len(longest_first) // _COMPARED, 1)
    for example in longest_first[::step]:
        for inputs in (example, [array[:1] for array in example]):
            with torch.inference_mode():
                expected = traced.module(*map(torch.from_numpy, inputs))
            for name, got, right in zip(traced.outputs, run(inputs), expected, strict=True):
                apart = np.abs(got - right.numpy()).max(initial=0)
                if not apart <= _CLOSE * max(float(right.abs().max()), 1.0):
                    raise GraphError(
                        f"the exported {type(traced.module.model).__name__} gives other answers "
                        f"than the model ({name} differs by {apart:.2g}): leave model.engine out"
                    )


def _make_forward(
    forward: Callable[..., Any], traced: Traced, run: RunGraph, output_type: Any
) -> Callable[..., Any]:
    import torch

    names = set(traced.names)

    @functools.wraps(forward)
    def compute(*args: Any, **keywords: Any) -> Any:
        given = {name for name, value in keywords.items() if torch.is_tensor(value)}
        if args or given != names:  # a text without what others have: the model itself computes
            return forward(*args, **keywords)
        inputs = [np.ascontiguousarray(keywords[name].numpy()) for name in traced.names]
        outputs = map(torch.from_numpy, run(inputs))
        return output_type(**dict(zip(traced.outputs, outputs, strict=True)))

    return compute
