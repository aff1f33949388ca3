"""Set torch and transformers for a worker, and put back how a program had set them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

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
