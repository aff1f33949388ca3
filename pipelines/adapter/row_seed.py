"""Random numbers that a row gets again, whenever and beside whichever rows it is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def seed_row(inputs: Any, device: Any) -> Iterator[None]:
    """torch's random numbers by the inputs alone: text generation samples unless told not to.

    A split that is written twice, by a run that was killed and the one after it, must hold the
    same rows. The process's own random numbers go on afterwards as if nothing had been.
    """
    import torch

    digest = hashlib.blake2b(digest_size=7)
    _feed(digest, inputs)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest.digest(), "big"))
        yield


def _feed(digest: Any, value: Any) -> None:
    """The numbers and texts in it; a pickled tensor has bytes that differ from run to run."""
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        for inner in value:
            _feed(digest, inner)
    elif hasattr(value, "detach"):
        digest.update(value.detach().double().cpu().numpy().tobytes())
    elif isinstance(value, str | int | float):
        digest.update(repr(value).encode())
