"""Which engines there are, by name. Knowing them imports neither torch nor transformers."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import entry_points

from .base import EngineFactory
from .generation.vllm_generation import VLLM
from .graphs.onnx import OnnxRuntime
from .graphs.openvino import OpenVinoRuntime

# Where another package says which engines it brings: name = "module:FACTORY" in pyproject.toml.
ENTRY_POINTS = "pipemill.engines"
# The first of packed, padded and compiled that suits the model.
AUTO = "auto"
# Padded always: the model stays as transformers loaded it. For comparisons, not for jobs.
PADDED = "padded"

_GRAPHS = (OnnxRuntime(), OpenVinoRuntime())
_BUILT_IN = {
    factory.name: factory
    for factory in (VLLM, *(EngineFactory(name=graph.name, graph=graph) for graph in _GRAPHS))
}
_REGISTERED: dict[str, EngineFactory] = {}


def list_engines() -> list[str]:
    """Return the values that `model.engine` may have."""
    others = {*_BUILT_IN, *_REGISTERED, *(point.name for point in entry_points(group=ENTRY_POINTS))}
    return [AUTO, *sorted(others)]


def register_engine(factory: EngineFactory) -> None:
    """Make an engine known in this process. Workers know those of entry points only."""
    _REGISTERED[factory.name] = factory


def find_engine(name: str) -> EngineFactory | None:
    """Return the factory of an engine by its name; None for what computes with torch.

    Raises:
        LookupError: there is no such engine, or its package can't be used.
    """
    if name in (AUTO, PADDED):
        return None
    known = {**_BUILT_IN, **_REGISTERED}
    if name in known:
        return known[name]
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            try:
                return point.load()
            except Exception as error:
                raise LookupError(
                    f"the engine {name!r} of {point.value} (entry point {ENTRY_POINTS}) can't be "
                    f"used: {type(error).__name__}: {error}"
                ) from error
    if near := get_close_matches(name, list_engines(), n=1):
        raise LookupError(f"no engine {name!r}; did you mean {near[0]!r}?")
    raise LookupError(f"no engine {name!r}; the engines are: {', '.join(list_engines())}")
