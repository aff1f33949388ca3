"""The budget: fastest of a few, or the user's, and never again what did not fit."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.actors.compute.token_budget import TokenBudget

CANDIDATES = (2048, 4096, 1024)


def settle(budget: TokenBudget, rate, fill: float = 1.0) -> int:
    """Runs micro-batches until nothing is tried any more; returns how many it took."""
    for count in range(100):
        if budget.is_final:
            return count
        tokens = int(budget.tokens * fill)
        budget.record(budget.tokens, tokens, tokens, tokens / rate(budget.tokens))
    raise AssertionError("never settles")


@pytest.mark.parametrize("best", CANDIDATES)
def test_the_fastest_of_the_candidates_is_found_in_a_few_micro_batches(best):
    budget = TokenBudget(*CANDIDATES)
    assert budget.tokens == 2048, "the likely best comes first"
    assert settle(budget, lambda tokens: 100.0 + (tokens == best)) <= 7
    assert budget.tokens == best


def test_the_first_micro_batch_warms_up_and_is_not_measured():
    budget = TokenBudget(*CANDIDATES)
    budget.record(2048, 2048, 2048, 1000.0)
    settle(budget, lambda tokens: 100.0 + (tokens == 2048))
    assert budget.tokens == 2048


def test_micro_batches_that_are_not_filled_settle_for_the_likely_best():
    budget = TokenBudget(*CANDIDATES)
    settle(budget, lambda tokens: tokens, fill=0.1)
    assert budget.tokens == 2048


def test_the_users_number_is_not_measured():
    budget = TokenBudget(700)
    assert (budget.is_final, budget.tokens) == (True, 700)
    budget.record(700, 700, 700, 1.0)
    assert budget.tokens == 700
    budget.halve(650)
    assert (budget.is_final, budget.tokens) == (True, 325)


def test_a_settled_budget_that_no_longer_fits_gives_way_to_the_best_that_does():
    budget = TokenBudget(1024, 512, 4096, 2048)
    settle(budget, {4096: 9.0, 2048: 5.0, 1024: 7.0, 512: 6.0}.get)
    assert budget.tokens == 4096
    budget.halve(4096)
    assert budget.tokens == 1024


def test_what_still_fits_is_measured_though_memory_ran_out():
    budget = TokenBudget(*CANDIDATES)
    budget.halve(4096)
    assert not budget.is_final
    assert {*budget.candidates} == {2048, 1024}
    settle(budget, {2048: 1.0, 1024: 2.0}.get)
    assert budget.tokens == 1024


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(1, 9)), max_size=30),
)
def test_whatever_happens_what_did_not_fit_is_never_tried_again(candidates, events):
    budget, least = TokenBudget(*candidates), max(candidates)
    for fits, fill, seconds in events:
        now = budget.tokens
        assert 1 <= now <= least
        tokens = max(now * fill // 9, 2)
        if fits:
            budget.record(now, tokens, tokens, seconds)
        else:
            budget.halve(tokens)
            least = min(least, tokens // 2)
    settle(budget, lambda tokens: 1.0)
    assert budget.tokens <= least
    assert budget.tokens in candidates or budget.tokens == least
