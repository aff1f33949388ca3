"""Find what a loaded model and its checkpoint do not share.

transformers fills weights that the checkpoint lacks with random numbers, and leaves out layers
that config.json does not count.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..shared_patch import SharedPatch, Step

# Weights that no answer depends on, though checkpoints in wide use lack them.
_UNUSED = re.compile(
    r"(^|\.)masked_spec_embed$"  # masks speech while training: wav2vec 2.0 and models like it
    r"|(^|\.)mask_token$|(^|\.)mask_emb$"  # masks patches or words while training
    r"|(^|\.)num_batches_tracked$"
    r"|(^|\.)position_ids$"
    r"|^neck\.fusion_stage\.layers\.0\.residual_layer1\."  # DPT: the first layer adds nothing
)
_NUMBER = re.compile(r"\.(\d+)(?=\.)")
_POOLER = re.compile(r"(^|\.)pooler\.")
# Tasks that read the last hidden state, and not what the model pools from it.
_UNPOOLED_TASKS = ("feature-extraction", "image-feature-extraction")


def find_missing_weights(model: Any, missing: Iterable[str], task: str) -> list[str]:
    """Return the missing weights that the task's answers depend on, those of its head first.

    Args:
        model: a `transformers.PreTrainedModel`; its weights may be on the meta device.
        missing: the names that transformers reports as newly initialized.
        task: the Hugging Face name of the task.
    """
    order = {name: place for place, name in enumerate(model.state_dict())}
    base = f"{model.base_model_prefix}."
    return sorted(
        (name for name in missing if not _is_harmless(model, name, task)),
        key=lambda name: (name.startswith(base), order.get(name, len(order))),
    )


def describe_missing(model: Any, missing: list[str], unexpected: Iterable[str]) -> str:
    """Return a message: what the checkpoint lacks, what it has instead, what to do."""
    names = ", ".join(missing[:4]) + (f", … ({len(missing)} in all)" if len(missing) > 4 else "")
    beside = sorted(unexpected)
    instead = (
        f"; it has {', '.join(beside[:3])}{', …' if len(beside) > 3 else ''} instead"
        if beside
        else ""
    )
    return (
        f"the checkpoint lacks weights of {type(model).__name__}: {names}{instead}. They would be "
        "random numbers, and so would the answers: name a model that was trained for this task "
        "(or set model.allow_missing to true if you mean it)"
    )


def find_layers_left_out(model: Any, unexpected: Iterable[str]) -> str | None:
    """Return a message if the checkpoint has more layers of a stack than config.json counts.

    A layer with weights that none of the stack has is something else: it predicts further tokens
    (DeepSeek's and its relatives' last one).

    Args:
        model: a `transformers.PreTrainedModel`.
        unexpected: the names that transformers reports as not used.
    """
    base = f"{model.base_model_prefix}."
    beyond = _group_by_layer(unexpected, base)
    if not beyond:
        return None
    there = _group_by_layer(model.state_dict(), base)
    for stack, layers in beyond.items():
        known = set().union(*there.get(stack, {}).values())
        extra = [n for n in layers if n not in there.get(stack, {}) and layers[n] <= known]
        if extra:
            count = len(there[stack])
            return (
                f"the checkpoint has {count + len(extra)} layers of {stack}, and "
                f"{type(model).__name__} has {count} by config.json: the others would be left out. "
                "Take the config.json that belongs to the weights (or set model.allow_missing to "
                "true if you mean it)"
            )
    return None


def _group_by_layer(names: Iterable[str], base: str) -> dict[str, dict[int, set[str]]]:
    """Return, by stack of layers and number in it, how the layer's weights are called there.

    base: a prefix that the checkpoint or the model may have, and the other not.
    """
    found: dict[str, dict[int, set[str]]] = {}
    for name in (name.removeprefix(base) for name in names):
        for part in _NUMBER.finditer(name):
            layers = found.setdefault(name[: part.start()], {})
            layers.setdefault(int(part[1]), set()).add(name[part.end() :])
    return found


def _is_harmless(model: Any, name: str, task: str) -> bool:
    if _UNUSED.search(name):
        return True
    if _POOLER.search(name):
        composite = bool(getattr(model.config, "is_encoder_decoder", False))
        return task in _UNPOOLED_TASKS or composite
    # Positions that are computed, not learned: Pegasus and Marian do not save them.
    try:
        owner = model.get_submodule(name.rpartition(".")[0])
    except AttributeError:
        return False
    return "Sinusoidal" in type(owner).__name__


@contextmanager
def record_loading() -> Iterator[list[tuple[Any, Any]]]:
    """Collect each model that transformers loads inside the block in this thread, with its info.

    `transformers.pipeline` loads a model without handing on what `output_loading_info` would
    return; this takes it where transformers logs it. Where transformers has no such place, nothing
    is collected.
    """
    found: list[tuple[Any, Any]] = []
    with _PATCH.applied():
        before, _thread.found = getattr(_thread, "found", None), found
        try:
            yield found
        finally:
            _thread.found = before


def _find_steps() -> list[Step]:
    from transformers import PreTrainedModel

    there = "_finalize_model_loading" in vars(PreTrainedModel)
    return [(PreTrainedModel, "_finalize_model_loading", _wrap_loading)] if there else []


_PATCH = SharedPatch(_find_steps)
_thread = threading.local()  # .found: what `record_loading` collects in this thread


def _wrap_loading(usual: Any) -> Any:
    def finalize(model: Any, load_config: Any, loading_info: Any) -> Any:
        info = usual.__func__(model, load_config, loading_info)
        if (found := getattr(_thread, "found", None)) is not None:
            found.append((model, info))
        return info

    return staticmethod(finalize)
