"""Ask a store for many things at once: it takes long to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_THREADS = 16
# A million calls that wait take a gigabyte.
_CALLS = 4096

T = TypeVar("T")
R = TypeVar("R")


def map_parallel(call: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Call a function for every item, many at a time; yield the results in the items' order."""
    left = iter(items)
    with ThreadPoolExecutor(_THREADS) as threads:
        while some := list(islice(left, _CALLS)):
            yield from threads.map(call, some)
