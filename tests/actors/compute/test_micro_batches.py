import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.compute.micro_batches import count_padded_tokens, cut_micro_batches

SIZES = st.lists(st.integers(1, 600), max_size=300).map(lambda s: np.array(s, dtype=np.int64))


@given(SIZES, st.integers(1, 3000), st.booleans())
def test_every_chunk_is_in_one_micro_batch_within_the_budget(sizes, budget, grouped):
    batches = cut_micro_batches(sizes, budget, sizes % 5 if grouped else None)
    together = np.concatenate([np.array([], dtype=int), *batches])
    assert sorted(together) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= budget
        if grouped:
            assert len(set(sizes[batch] % 5)) == 1


def cost(sizes, batches, budget):
    return count_padded_tokens(sizes, batches) + len(batches) * budget / 64


@given(st.lists(st.integers(1, 40), max_size=9).map(np.array), st.integers(1, 120))
def test_no_other_cuts_of_the_sorted_chunks_cost_less(sizes, budget):
    sizes = sizes.astype(np.int64)
    order = np.argsort(-sizes, kind="stable")
    best = np.inf
    for cuts in range(2 ** max(len(sizes) - 1, 0)):
        at = [i + 1 for i in range(len(sizes) - 1) if cuts >> i & 1]
        batches = np.split(order, at)
        if all(len(b) <= 1 or len(b) * sizes[b].max() <= budget for b in batches):
            best = min(best, cost(sizes, [b for b in batches if len(b)], budget))
    assert cost(sizes, cut_micro_batches(sizes, budget), budget) == pytest.approx(best)


def test_natural_lengths_are_hardly_padded_even_in_a_small_split():
    sizes = np.random.default_rng(0).lognormal(3.3, 0.9, 256).astype(np.int64).clip(3, 512)
    batches = cut_micro_batches(sizes, 2048)
    assert count_padded_tokens(sizes, batches) < 1.08 * sizes.sum()
    assert len(batches) < 50


def test_chunks_of_many_rows_share_a_micro_batch_with_little_padding():
    # One row of 200 chunks among 200 rows of one.
    sizes = np.array([64] * 200 + list(range(1, 201)))
    batches = cut_micro_batches(sizes, 2048)
    assert count_padded_tokens(sizes, batches) < 1.1 * sizes.sum()
    in_order = [np.arange(i, i + 32) for i in range(0, 400, 32) if i + 32 <= 400]
    assert count_padded_tokens(sizes, in_order) > 1.1 * sizes[:384].sum()


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        cut_micro_batches(np.array([1]), 0)
