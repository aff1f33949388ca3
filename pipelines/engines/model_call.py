"""One call of a pipeline's model, on its device."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, wraps
from typing import Any

from pipemill.actors.device_transfer import to_device
from pipemill.actors.faults.watchdog import mark_progress

from ..text import model_limits
from .base import Columns, ModelOutputs

# Of a thread's call: .known, the masks that it tells of; .made, the last one that was made of one.
_masks = threading.local()


class ModelCall:
    """Calls the model with numpy arrays, and returns the outputs that a task wants."""

    def __init__(self, pipeline: Any, outputs: ModelOutputs) -> None:
        self.pipeline, self.outputs = pipeline, outputs

    def tensors(self, inputs: Columns) -> dict[str, Any]:
        """Return the arrays as tensors on the model's device."""
        return {name: to_device(values, self.pipeline.device) for name, values in inputs.items()}

    def __call__(
        self,
        inputs: Columns,
        model: Callable[..., Any] | None = None,
        hides: bool | None = None,
    ) -> Any:
        """Return the output, of shape (chunks, tokens, …), or (chunks, …) of a model that pools.

        Args:
            inputs: of shape (chunks, tokens).
            model: what is called instead of the pipeline's model.
            hides: whether the mask hides any token; None if that is not known.
        """
        import torch

        pipeline, tensors = self.pipeline, self.tensors(inputs)
        if "use_cache" in inspect.signature(pipeline.model.forward).parameters:
            tensors["use_cache"] = False
        mask = tensors.get("attention_mask")
        known = tell_masks((mask, hides)) if hides is not None else nullcontext()
        with torch.inference_mode(), pipeline.device_placement(), known:
            found = (model or pipeline.model)(**tensors)
            if not self.outputs.names:
                return found[0]
            several = [found[name] for name in self.outputs.names]
            return torch.stack(several, dim=-1) if len(several) > 1 else several[0]


@contextmanager
def tell_masks(*masks: tuple[Any, bool]) -> Iterator[None]:
    """Tell transformers whether these masks hide any token, for calls in this block.

    It would ask a GPU, and wait for all that it has to do. Other masks are not affected: a model
    may hide some tokens by itself, such as padding, and then has made another mask.

    Args:
        masks: tensors of shape (rows, tokens), and whether each hides any token.
    """
    _tell_mask_makers()
    before = _masks.__dict__.get("known", ())
    _masks.known = masks
    try:
        yield
    finally:
        _masks.known, _masks.made = before, (None, None)


@cache
def _tell_mask_makers() -> None:
    from transformers import AttentionMaskInterface, masking_utils

    makers = AttentionMaskInterface()
    for name in ("sdpa", "eager"):
        AttentionMaskInterface.register(name, _use_known_mask(makers[name]))
    # What a maker gets is a mask of booleans, which this function makes of the one for the model.
    if usual := getattr(masking_utils, "_preprocess_mask_arguments", None):
        masking_utils._preprocess_mask_arguments = _note_made_mask(usual)


def _note_made_mask(preprocess: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, and notes what is known of the mask that it makes."""

    @wraps(preprocess)
    def preprocess_and_note(*given: Any, **named: Any) -> Any:
        found = preprocess(*given, **named)
        known = getattr(_masks, "known", ())
        if known:
            mask = named["attention_mask"] if "attention_mask" in named else given[2]
            hides = next((hides for one, hides in known if one is mask), None)
            _masks.made = found[1], hides
        return found

    return preprocess_and_note


def _use_known_mask(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a maker of masks that does the same, and asks nothing that is known."""

    @wraps(make)
    def make_known(*given: Any, **named: Any) -> Any:
        made: Any = getattr(_masks, "made", (None, None))
        mask, hides = made
        # One of another width is filled up with tokens that are hidden.
        if (
            mask is not None
            and mask.shape[-1] == named.get("kv_length")
            and mask is named.get("attention_mask")
        ):
            if hides:
                skips = ("allow_is_causal_skip", "allow_is_bidirectional_skip")
                named.update((name, False) for name in skips if name in named)
            elif hides is not None:
                named["attention_mask"] = None
        return make(*given, **named)

    return make_known


def select_first_tokens(output: Any) -> Any:
    """Return a row for each chunk: a model without a head has one for each of its tokens."""
    return output[:, 0] if output.dim() > 2 else output


def find_output_shape(pipeline: Any) -> tuple[int, ...]:
    """Return the shape of the model's output for one token.

    It is (1, 1, width), or (1, width) for a model that pools, like DPR. OPT and Reformer put out
    vectors of another width than their configuration's, so the model is run once.
    """
    import torch

    model = pipeline.model
    # A configuration of a user's own code may call it otherwise.
    width = getattr(model.config.get_text_config(), "hidden_size", None)
    if width and model_limits.needs_own_length(model):  # a short chunk might change the model
        return 1, 1, int(width)
    try:
        token = torch.zeros((1, 1), dtype=torch.int64, device=pipeline.device)
        with torch.inference_mode():
            return tuple(model(input_ids=token)[0].shape)
    except Exception:  # a model without weights, or one that needs more than a token
        if not width:
            raise
        return 1, 1, int(width)


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
