import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.isolate import isolate


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=20))
def test_exactly_the_items_that_raise_are_found(count, bad):
    items = np.arange(count)

    def run(some):
        if bad & set(some.tolist()):
            raise ValueError(f"{len(some)} items")
        return some * 2

    pieces, failed = isolate(items, run)
    assert sorted(item for item, _ in failed) == sorted(bad & set(items.tolist()))
    assert all(str(error) == "1 items" for _, error in failed)
    good = [item for index, _ in pieces for item in index.tolist()]
    assert good == [item for item in items if item not in bad]
    for index, result in pieces:
        assert (result == index * 2).all()


def test_one_bad_item_among_many_costs_few_calls():
    calls = []

    def run(some):
        calls.append(len(some))
        if 700 in some:
            raise ValueError

    isolate(np.arange(1024), run)
    assert len(calls) <= 2 * 10 + 1
