import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.faults.bisect import SomeFailed, bisect_failures


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=20))
def test_exactly_the_items_that_raise_are_found(count, bad):
    items = np.arange(count)

    def run(some):
        if bad & set(some.tolist()):
            raise ValueError(f"{len(some)} items")
        return some * 2

    pieces, failed = bisect_failures(items, run)
    assert sorted(item for item, _ in failed) == sorted(bad & set(items.tolist()))
    assert all(str(error) == "1 items" for _, error in failed)
    good = [item for index, _ in pieces for item in index.tolist()]
    assert good == [item for item in items if item not in bad]
    for index, result in pieces:
        assert (result == index * 2).all()


def test_what_is_no_rows_fault_is_raised_and_a_tokenizers_panic_is_a_rows_fault():
    class PanicException(BaseException):
        """As Rust extensions raise it."""

    def run(some):
        if 3 in some:
            raise error
        return some

    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    for error in (lost, KeyboardInterrupt()):
        with pytest.raises(type(error)):
            bisect_failures(np.arange(8), run)
    error = PanicException("attempt to subtract with overflow")
    assert [item for item, _ in bisect_failures(np.arange(8), run)[1]] == [3]


def test_one_bad_item_among_many_costs_few_calls():
    calls = []

    def run(some):
        calls.append(len(some))
        if 700 in some:
            raise ValueError

    bisect_failures(np.arange(1024), run)
    assert len(calls) <= 2 * 10 + 1


@given(st.integers(1, 50), st.sets(st.integers(0, 49), max_size=50))
def test_a_run_that_knows_which_items_fail_is_called_once(count, bad):
    items, calls = np.arange(count) * 3, []

    def run(some):
        calls.append(len(some))
        failed = {i: ValueError(f"{item}") for i, item in enumerate(some.tolist()) if i in bad}
        if failed:
            raise SomeFailed(failed, np.delete(some, list(failed)) * 2)
        return some * 2

    pieces, failed = bisect_failures(items, run)
    assert calls == [count]
    assert [(item, str(error)) for item, error in failed] == [
        (i * 3, str(i * 3)) for i in sorted(bad) if i < count
    ]
    for index, result in pieces:
        assert (result == index * 2).all()
    good = [item for index, _ in pieces for item in index.tolist()]
    assert good == [i * 3 for i in range(count) if i not in bad]
