"""All chunks of a split through a task that fails, or does not fit, at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.actors.arrow_arrays import scatter
from pipemill.actors.compute.forward_pass import ForwardPass
from pipemill.actors.compute.token_budget import TokenBudget

FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


class Memory:
    """A task whose answer is what the chunk says; `room` tokens fit into its memory.

    bad: what chunks may say that fail. trouble: numbers of calls that fail for memory, whatever
    they are asked. late: as from a GPU, answers and what is bad show only when they are waited for.
    """

    def __init__(self, room=10**9, packed=False, repeats=True, bad=(), trouble=(), late=False):
        self.room, self.packed, self.repeats, self.late = room, packed, repeats, late
        self.arrived = 0
        self.bad, self.trouble = set(bad), set(trouble)
        self.calls = []

    def forward(self, chunks):
        sizes, says = chunks.field("size").to_numpy(), chunks.field("says").to_pylist()
        self.calls.append(says)
        assert self.packed or len(set(chunks.field("group").to_pylist())) == 1
        cost = sizes.sum() if self.packed else len(sizes) * sizes.max()
        if len(self.calls) in self.trouble or cost > self.room:
            raise RuntimeError(FULL)
        return (lambda: self.answers(says)) if self.late else self.answers(says)

    def answers(self, says):
        self.arrived += 1
        if self.bad & set(says):
            raise KeyError(f"{self.bad & set(says)}: out of memory, says the row")
        return pa.array([f"{word}!" for word in says])


def chunks_of(sizes, says=None, groups=None):
    says = [f"chunk {i}" for i in range(len(sizes))] if says is None else says
    columns = [pa.array(sizes, pa.int64()), pa.array(says, pa.string())]
    columns.append(pa.array(groups or [0] * len(sizes), pa.int64()))
    return pa.StructArray.from_arrays(columns, names=["size", "says", "group"])


def ran(task, budget, chunks):
    """The forward pass, and its outputs: null for a chunk that failed."""
    forward = ForwardPass(task, budget, chunks)
    forward.run()
    return forward, scatter(forward.done, len(chunks), pa.string()).to_pylist()


WORDS = st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(0, 2))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    words=st.lists(WORDS, max_size=40),
    budgets=st.lists(st.integers(1, 200), min_size=1, max_size=3, unique=True),
    room=st.integers(1, 200),
    bad=st.sets(st.integers(0, 9), max_size=3),
    trouble=st.sets(st.integers(1, 20), max_size=4),
    packed=st.booleans(),
    repeats=st.booleans(),
    late=st.booleans(),
)
def test_every_chunk_has_its_own_answer_whatever_happens(
    words, budgets, room, bad, trouble, packed, repeats, late
):
    sizes, _, groups = ([word[i] for word in words] for i in range(3))
    says = [f"{number} in {size}, {group}" for size, number, group in words]
    failing = {say for say, word in zip(says, words, strict=True) if word[1] in bad}
    task = Memory(room, packed, repeats, failing, trouble, late)
    forward, answers = ran(task, TokenBudget(*budgets), chunks_of(sizes, says, groups))
    failed = dict(forward.failed)
    assert len(failed) == len(forward.failed), "no chunk fails twice"
    alone = {
        say for call, says_ in enumerate(task.calls, 1) if call in trouble for say in says_[:1]
    }
    for i, (say, size) in enumerate(zip(says, sizes, strict=True)):
        if say in failing:
            assert isinstance(failed[i], KeyError | RuntimeError)
        elif size > room:
            assert str(failed[i]) == FULL
        elif i in failed:
            assert say in alone, "a single chunk met with trouble"
        if i in failed:
            assert answers[i] is None
        else:
            assert answers[i] == f"{say}!"
    once = len(set(says)) if repeats else len(says)
    assert forward.stats["chunks"] == len(says)
    assert forward.stats["repeated_chunks"] == len(says) - once
    for call in task.calls:
        assert not repeats or len(set(call)) == len(call)


@pytest.mark.parametrize("packed", [False, True])
def test_memory_that_ends_halves_the_budget_and_the_next_split_knows(packed):
    task, budget = Memory(room=100, packed=packed), TokenBudget(1000)
    chunks = chunks_of([10] * 300)
    forward, answers = ran(task, budget, chunks)
    assert answers == [f"chunk {i}!" for i in range(300)]
    assert 50 < budget.tokens <= 100
    assert forward.stats["out_of_memory"] == 4
    assert forward.stats["tokens"] == 3000, "of what fitted"
    again, _ = ran(task, budget, chunks)
    assert again.stats["out_of_memory"] == 0


@pytest.mark.parametrize("packed", [False, True])
def test_one_chunk_that_never_fits_is_its_rows_trouble_alone(packed):
    task = Memory(room=100, packed=packed)
    sizes = [10] * 20
    sizes[7] = 101
    forward, answers = ran(task, TokenBudget(5000), chunks_of(sizes))
    assert [(i, str(error)) for i, error in forward.failed] == [(7, FULL)]
    assert answers == [None if i == 7 else f"chunk {i}!" for i in range(20)]


def test_a_failing_chunk_fails_with_all_its_equals_and_nobody_else():
    says = ["good", "bad", "good", "other", "bad", "bad"]
    forward, answers = ran(Memory(bad=["bad"]), TokenBudget(100), chunks_of([5] * 6, says))
    assert sorted(i for i, _ in forward.failed) == [1, 4, 5]
    assert answers == ["good!", None, "good!", "other!", None, None]


def test_what_draws_lots_is_never_computed_once_for_several():
    task = Memory(repeats=False)
    ran(task, TokenBudget(100), chunks_of([5] * 6, ["same"] * 6))
    assert sum(map(len, task.calls)) == 6


def test_chunks_of_no_size_end_too():
    for packed in (False, True):
        task = Memory(room=-1, packed=packed)
        forward, _ = ran(task, TokenBudget(100), chunks_of([0] * 5))
        assert len(forward.failed) == 5


def test_what_did_not_fit_is_let_go_before_the_next_try():
    import gc
    import weakref

    class Tensor:
        pass

    alive = []

    class Leaky(Memory):
        def forward(self, chunks):
            tensor = Tensor()
            assert not any(ref() for ref in alive), "an exception still holds what failed"
            alive.append(weakref.ref(tensor))
            return super().forward(chunks)

    gc.disable()
    try:
        task = Leaky(room=40, bad=["chunk 3"])
        forward, _ = ran(task, TokenBudget(100), chunks_of([10] * 12))
    finally:
        gc.enable()
    assert [i for i, _ in forward.failed] == [3]


def test_a_device_is_waited_for_only_when_it_has_all_micro_batches():
    waited = []

    class Device(Memory):
        def answers(self, says):
            waited.append(len(self.calls))
            return super().answers(says)

    task, chunks = Device(late=True), chunks_of([10] * 20)
    _, answers = ran(task, TokenBudget(50), chunks)
    assert answers == [f"chunk {i}!" for i in range(20)]
    assert waited == [4] * 4
    measured, waited[:] = Device(late=True), []
    ran(measured, TokenBudget(50, 20), chunks)
    assert waited[:3] == [1, 2, 3], "each micro-batch that is measured is waited for"


def test_the_work_tells_tokens_padding_and_packing():
    sizes = [10, 9, 3, 1]
    padded, _ = ran(Memory(), TokenBudget(640), chunks_of(sizes))
    assert padded.stats["tokens"] == 23
    assert padded.stats["padded_tokens"] == 26
    assert padded.stats["packed_tokens"] == 0
    packed, _ = ran(Memory(packed=True), TokenBudget(40), chunks_of(sizes))
    assert packed.stats["tokens"] == packed.stats["padded_tokens"] == 23
    assert packed.stats["packed_tokens"] == 23


def test_memory_is_meant_by_errors_of_memory_only():
    from pipemill.actors.faults.bisect import is_row_error
    from pipemill.actors.faults.blame import is_out_of_memory

    errors = [RuntimeError(FULL), MemoryError(), RuntimeError("CUDA error: out of memory")]
    errors += [RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
    errors += [RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")]
    errors += [RuntimeError("could not create a primitive")]  # of oneDNN, which says no more
    for error in errors:
        assert is_out_of_memory(error)
        assert is_row_error(error)
    assert not is_out_of_memory(ValueError("a text about running out of memory"))
    assert not is_row_error(RuntimeError("CUDA error: an illegal memory access"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_when_the_machines_memory_ends_the_run_goes_on_with_a_smaller_budget():
    from tests.support import run_in_little_memory as little

    run = subprocess.run(
        [sys.executable, "-m", little.__name__],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["failures"] == []
    assert told["out_of_memory"] >= 1
    assert told["budget"] < little.BUDGET / 4
    assert told["farthest"] < 1e-5 < 0.1 < told["spread"]


def test_an_engine_that_takes_all_chunks_loses_only_the_one_that_never_fits():
    task = Memory(room=100, packed=True)
    task.schedules = True
    sizes = [10] * 20
    sizes[7] = 101

    def forward(chunks):  # what an engine leaves to transformers runs one by one
        each = (chunks[i : i + 1] for i in range(len(chunks)))
        return pa.concat_arrays([Memory.forward(task, one) for one in each])

    task.forward = forward
    forward, answers = ran(task, TokenBudget(5000), chunks_of(sizes))
    assert [(i, str(error)) for i, error in forward.failed] == [(7, FULL)]
    assert answers == [None if i == 7 else f"chunk {i}!" for i in range(20)]


def test_outputs_that_no_array_holds_say_what_to_do():
    big = pa.ListArray.from_arrays(pa.array([0, 2**30], pa.int32()), pa.nulls(2**30))
    with pytest.raises(OverflowError, match="a smaller output.rows_per_part"):
        scatter([(np.array([i]), big) for i in range(3)], 3)
