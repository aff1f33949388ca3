import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill.actors.batching import micro_batches, padded_size

SIZES = st.lists(st.integers(1, 600), max_size=300).map(lambda s: np.array(s, dtype=np.int64))


@given(SIZES, st.integers(1, 3000), st.booleans())
def test_every_chunk_is_in_one_micro_batch_within_the_budget(sizes, budget, equal):
    batches = micro_batches(sizes, budget, equal_sizes=equal)
    together = np.concatenate([np.array([], dtype=int), *batches])
    assert sorted(together) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= budget
        if equal:
            assert len(set(sizes[batch])) == 1


@given(SIZES, st.integers(1, 3000))
def test_no_two_neighbouring_micro_batches_would_fit_in_one(sizes, budget):
    batches = micro_batches(sizes, budget)
    for one, next_ in zip(batches, batches[1:], strict=False):
        assert (len(one) + 1) * sizes[one].max() > budget
        assert sizes[one].min() >= sizes[next_].max()


def test_chunks_of_many_rows_share_a_micro_batch_with_little_padding():
    # One row of 200 chunks among 200 rows of one.
    sizes = np.array([64] * 200 + list(range(1, 201)))
    batches = micro_batches(sizes, 2048)
    assert padded_size(sizes, batches) < 1.1 * sizes.sum()
    in_order = [np.arange(i, i + 32) for i in range(0, 400, 32) if i + 32 <= 400]
    assert padded_size(sizes, in_order) > 1.1 * sizes[:384].sum()


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        micro_batches(np.array([1]), 0)
