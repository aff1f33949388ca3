"""Give a row the same random numbers whenever, and beside other rows, it is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


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
    elif hasattr(value, "detach"):
        digest.update(value.detach().double().cpu().numpy().tobytes())
    elif isinstance(value, str | int | float):
        digest.update(repr(value).encode())
