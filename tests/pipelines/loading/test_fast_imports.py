"""Large imports: garbage is looked for before and after, and not in what they made."""

from __future__ import annotations

import gc

import pytest
from pipemill.pipelines.loading.fast_imports import gc_paused


@pytest.fixture
def frozen():
    yield gc.get_freeze_count
    gc.enable()


def test_what_is_imported_is_not_looked_through(frozen):
    before = frozen()
    with gc_paused():
        assert not gc.isenabled()
        made = [[] for _ in range(10**4)]
    assert gc.isenabled()
    assert frozen() >= before + len(made)


def test_who_looks_for_no_garbage_still_does_not(frozen):
    gc.disable()
    before = frozen()
    with pytest.raises(ImportError), gc_paused():
        raise ImportError("no such library")
    assert not gc.isenabled()
    assert frozen() <= before  # another thread may let go of some
