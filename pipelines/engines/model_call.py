"""One call of a pipeline's model, on its device."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any
from weakref import WeakKeyDictionary

from pipemill.actors.device_transfer import to_device
from pipemill.actors.faults.watchdog import mark_progress

from ..text import model_limits
from .base import Columns, ModelOutputs

_masks = threading.local()  # .known of a thread's call: `KnownMasks`, and what it says
_COMPARED = 4  # masks that hide nothing
_models: WeakKeyDictionary[Any, KnownMasks] = WeakKeyDictionary()


class ModelCall:
    """Calls the model with numpy arrays, and returns the outputs that a task wants."""

    def __init__(self, pipeline: Any, outputs: ModelOutputs) -> None:
        self.pipeline, self.outputs = pipeline, outputs

    def tensors(self, inputs: Columns) -> dict[str, Any]:
        """Return the arrays as tensors on the model's device."""
        return {name: to_device(values, self.pipeline.device) for name, values in inputs.items()}

    def __call__(self, inputs: Columns, model: Callable[..., Any] | None = None) -> Any:
        """Return the output, of shape (chunks, tokens, …), or (chunks, …) of a model that pools.

        Args:
            inputs: of shape (chunks, tokens).
            model: what is called instead of the pipeline's model.
        """
        import torch

        pipeline, tensors = self.pipeline, self.tensors(inputs)
        if "use_cache" in inspect.signature(pipeline.model.forward).parameters:
            tensors["use_cache"] = False
        with torch.inference_mode(), pipeline.device_placement():
            found = (model or pipeline.model)(**tensors)
            if not self.outputs.names:
                return found[0]
            several = [found[name] for name in self.outputs.names]
            return torch.stack(several, dim=-1) if len(several) > 1 else several[0]


class KnownMasks:
    """Tells transformers whether a model's masks hide any token.

    It would ask a GPU, and wait for all that it has to do. A model may hide some tokens by itself,
    as that of padding, so what is said is compared with the mask: on a CPU always, on a GPU for the
    first times. The texts that a model is tried with (`packing_probe`) are of all kinds.
    """

    @classmethod
    def of(cls, model: Any) -> KnownMasks:
        """Return what is known of a model's masks: the same for all who ask."""
        if model not in _models:
            _models[model] = cls()
        return _models[model]

    def __init__(self) -> None:
        _tell_mask_makers()
        self._comparisons, self._is_right = _COMPARED, True

    @contextmanager
    def known(self, hide_text: bool, hide_read: bool) -> Iterator[None]:
        """Tell it for calls in this block, whose masks have the shape (rows, tokens).

        Args:
            hide_text: whether the mask of the text itself hides any token.
            hide_read: whether that of what a decoder reads does, or a text's that sees both ways.
        """
        before = getattr(_masks, "known", None)
        _masks.known = self, (hide_text, hide_read)
        try:
            yield
        finally:
            _masks.known = before

    def is_whole(self, mask: Any) -> bool:
        """Tell whether a mask of which this was said hides nothing."""
        if _is_on_host(mask):
            return bool(mask.all())
        if self._comparisons:
            self._comparisons -= 1
            self._is_right = self._is_right and bool(mask.all())
        return self._is_right


def _is_on_host(mask: Any) -> bool:
    return bool(mask.device.type == "cpu")


@cache
def _tell_mask_makers() -> None:
    from transformers import AttentionMaskInterface

    makers = AttentionMaskInterface()
    for name in ("sdpa", "eager"):
        AttentionMaskInterface.register(name, _told(makers[name]))


def _told(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a maker of masks that does the same, and asks nothing that is known."""

    @wraps(make)
    def told(*given: Any, **named: Any) -> Any:
        known, mask = getattr(_masks, "known", None), named.get("attention_mask")
        # One of another width is filled up with tokens that are hidden.
        if known is not None and mask is not None and mask.shape[-1] == named.get("kv_length"):
            masks, hide = known
            if hide["allow_is_bidirectional_skip" in named]:
                skips = ("allow_is_causal_skip", "allow_is_bidirectional_skip")
                named.update((name, False) for name in skips if name in named)
            elif masks.is_whole(mask):
                named["attention_mask"] = None
        return make(*given, **named)

    return told


def first_tokens(output: Any) -> Any:
    """Return a row for each chunk: a model without a head has one for each of its tokens."""
    return output[:, 0] if output.dim() > 2 else output


def find_output_shape(pipeline: Any) -> tuple[int, ...]:
    """Return the shape of the model's output for one token.

    It is (1, 1, width), or (1, width) for a model that pools, like DPR. OPT and Reformer put out
    vectors of another width than their configuration's, so the model is run once.
    """
    import torch

    model = pipeline.model
    default = 1, 1, int(model.config.get_text_config().hidden_size)
    if model_limits.needs_own_length(model):  # a short chunk might change the model
        return default
    try:
        token = torch.zeros((1, 1), dtype=torch.int64, device=pipeline.device)
        with torch.inference_mode():
            return tuple(model(input_ids=token)[0].shape)
    except Exception:  # a model without weights, or one that needs more than a token
        return default


def report_layers(model: object) -> None:
    """Let each call of the model and of its layers count as progress of the stage.

    A text of which every token takes long is then told from a hang.
    """
    import torch

    if not isinstance(model, torch.nn.Module):  # a pipeline of the user's may have any model
        return
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    for layer in {model, *(layer for layers in lists for layer in layers)}:
        layer.register_forward_pre_hook(mark_progress)
