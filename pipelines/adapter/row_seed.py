"""Give a row the same random numbers whenever, and beside other rows, it is computed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from pipemill.actors.faults.watchdog import hold

from .images.chunk_encoding import PixelLevels

# How CLAP takes its seconds of a longer recording: by numpy's random numbers.
_BY_CHANCE = ("rand_trunc", "fusion")
# Numbers of an array that decide a seed: to read all of a large image would take longer than some
# models do. A sound's are all read, so that CLAP hears the seconds that it heard for older outputs.
_MOST = 65_536
# Numpy's random numbers are the whole process's: one row at a time.
_drawing = threading.Lock()


@contextmanager
def seed_row(inputs: Any, device: Any) -> Iterator[None]:
    """Seed torch's random numbers by the inputs alone, inside the block.

    Text generation samples by default, and a split that is written twice, by a run that was killed
    and by the next one, must hold the same rows. Afterwards the process's random numbers go on as
    before.
    """
    import torch

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(find_seed(inputs))
        yield


@contextmanager
def seed_cuts(pipeline: Any, inputs: Any) -> Iterator[None]:
    """Seed numpy's random numbers by the inputs alone, where `preprocess` cuts sound by them."""
    extractor = getattr(pipeline, "feature_extractor", None)
    if getattr(extractor, "truncation", None) not in _BY_CHANCE:
        yield
        return
    with hold(_drawing):
        before = np.random.get_state()
        np.random.seed(find_seed(inputs) % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)


def find_seed(inputs: Any) -> int:
    """Return the seed of a row's random numbers, which its inputs alone decide."""
    digest = hashlib.blake2b(digest_size=7)
    _feed(digest, inputs)
    return int.from_bytes(digest.digest(), "big")


def _feed(digest: Any, value: Any) -> None:
    """Feed the numbers and texts in a value: a pickled tensor's bytes differ from run to run."""
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        for inner in value:
            _feed(digest, inner)
    elif isinstance(value, PixelLevels):
        _feed(digest, [value.codes, value.palette])
    elif hasattr(value, "detach"):
        digest.update(_sample_numbers(value.detach().flatten()).double().cpu().numpy().tobytes())
    elif isinstance(value, np.ndarray):
        digest.update((_sample_numbers(value.reshape(-1)) if value.ndim > 1 else value).tobytes())
    elif isinstance(value, str | int | float):
        digest.update(repr(value).encode())


def _sample_numbers(numbers: Any) -> Any:
    """Return at most `_MOST` of the numbers, from all over the array."""
    return numbers[:: -(-len(numbers) // _MOST) or 1]
