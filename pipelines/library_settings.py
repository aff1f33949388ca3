"""Set torch and transformers for a worker, and put back how a program had set them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from .shared_patch import SharedPatch, Step

# What puts back settings of this process that loading a model changed.
_undo: list[Callable[[], object]] = []
_blocks = 0


@contextmanager
def keep_settings() -> Iterator[None]:
    """Leave torch and transformers as the program set them that loads models in this block.

    Of blocks that are nested, or run in several threads, the last one puts settings back.
    """
    global _blocks
    if not _blocks:
        _undo.clear()
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        while _undo and not _blocks:
            _undo.pop()()


def set_libraries(transformers: Any) -> None:
    """Keep transformers quiet, and torch from an attention that is slow for ever new shapes.

    cuDNN's builds a graph for each new shape, which takes 42 ms (pytorch/pytorch#191576), and no
    two micro-batches are of one shape. `varlen_attn` of torch 2.15 prefers it on an H100.
    """
    import torch

    logging, cuda = transformers.utils.logging, torch.backends.cuda
    if not _undo:
        _undo.append(partial(torch.set_num_threads, torch.get_num_threads()))
        _undo.append(partial(cuda.enable_cudnn_sdp, cuda.cudnn_sdp_enabled()))
        _undo.append(partial(logging.set_verbosity, logging.get_verbosity()))
        if logging.is_progress_bar_enabled():
            _undo.append(logging.enable_progress_bar)
    # A worker's stderr is read by nobody; weight-loading bars only fill the logs.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cuda.enable_cudnn_sdp(False)


def ignore_weights_keyword() -> AbstractContextManager[None]:
    """Let Mistral's own tokenizers load inside the block.

    `transformers.pipeline` hands on to them what is said of a model's weights, which they refuse.
    """
    return _PATCH.applied()


def _find_steps() -> list[Step]:
    import transformers

    if not transformers.utils.is_mistral_common_available():
        return []
    owner = transformers.MistralCommonBackend
    return [(owner, _LOAD, _ignore_keyword)] if _LOAD in vars(owner) else []


def _ignore_keyword(usual: Any) -> Any:
    def from_pretrained(cls: Any, *given: Any, use_safetensors: Any = None, **named: Any) -> Any:
        return usual.__func__(cls, *given, **named)

    return classmethod(from_pretrained)


_LOAD = "from_pretrained"
_PATCH = SharedPatch(_find_steps)
