"""The stages around a task that fails on demand: whose row dies, where, and who is unharmed."""

import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.task import NotScheduled

from tests.support.lengths import Lengths


def process(texts, budget=12, staged=False):
    task = Lengths()
    stages = Stages(task, {"text": "body"}, TokenBudget(budget))
    batch = Batch(pa.table({"n": range(len(texts)), "body": pa.array(texts, pa.string())}))
    if not staged:
        return stages.process(batch), task
    for function in (stages.expand, stages.forward):
        batch = Batch.from_bytes(function(batch).to_bytes())
    return stages.regroup(batch), task


TEXTS = [f"text number {i} {'x' * (i % 7)}" for i in range(40)]


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("budget", [1, 5, 12, 10_000])
def test_chunks_of_all_rows_are_regrouped_under_their_rows(staged, budget):
    batch, task = process(TEXTS, budget, staged)
    assert batch.results["again"].to_pylist() == [text.upper() for text in TEXTS]
    assert batch.results["length"].to_pylist() == [len(text) for text in TEXTS]
    assert batch.rows["n"].to_pylist() == list(range(40))
    assert batch.stats["chunks"] == sum(-(-len(t) // 3) for t in TEXTS)
    assert sum(task.seen) == batch.stats["chunks"] - batch.stats["repeated_chunks"]


@pytest.mark.parametrize("staged", [False, True])
def test_a_row_that_raises_dies_alone_with_stage_error_and_message(staged):
    texts = list(TEXTS)
    texts[3], texts[17], texts[18], texts[39] = "expand", "forward, long", None, "regroup"
    batch, _ = process(texts, 30, staged)
    dead = {row: (f.stage, f.error) for row, f in batch.failures.items()}
    assert dead == {
        3: ("expand", "KeyError"),
        17: ("forward", "KeyError"),
        18: ("expand", "ValueError"),
        39: ("regroup", "KeyError"),
    }
    assert "'body' is null" in batch.failures[18].message
    assert "this is forward" in batch.failures[17].message
    for row, text in enumerate(texts):
        expected = None if row in dead else text.upper()
        assert batch.results["again"][row].as_py() == expected


def test_no_rows_and_only_dead_rows_keep_the_schema():
    for texts in ([], [None, "expand"]):
        batch, _ = process(texts)
        assert batch.results.schema == Lengths().results()
        assert batch.results.num_rows == len(texts)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("texts", [[""], ["", None, ""], ["", "one"], ["forward", ""]])
def test_rows_without_chunks_have_empty_lists_of_outputs(texts, staged):
    batch, _ = process(texts, staged=staged)
    known = [text for text in texts if text not in (None, "forward")]
    assert batch.results["again"].drop_null().to_pylist() == [text.upper() for text in known]


def test_wrong_number_of_answers_is_an_error_of_the_row_not_a_shift():
    task = Lengths()
    task.forward = lambda chunks: pa.array(["x"] * (len(chunks) - 1), pa.string())
    batch = Stages(task, {"text": "t"}, TokenBudget(100)).process(
        Batch(pa.table({"t": ["a", "b"]}))
    )
    assert {f.stage for f in batch.failures.values()} == {"forward"}


def test_overlapping_calls_count_the_actors_time_once():
    task = Lengths()
    forward, seconds = task.forward, 0.02

    def slow(chunks):
        time.sleep(seconds)
        return forward(chunks)

    task.forward = slow
    started = time.perf_counter()
    stages = Stages(task, {"text": "t"}, TokenBudget(10**6))
    batches = [Batch(pa.table({"t": [f"{i}", "b"]})) for i in range(8)]
    with ThreadPoolExecutor(4) as calls:
        list(calls.map(stages.process, batches))
    wall = time.perf_counter() - started
    actor = sum(batch.stats["actor_seconds"] for batch in batches)
    busy = sum(batch.stats["forward_seconds"] for batch in batches)
    assert 8 * seconds <= busy <= actor <= wall
    assert sum(batch.stats["budget_1000000"] for batch in batches) == 8


def test_chunks_that_turn_out_not_to_be_scheduled_come_again_in_micro_batches():
    """Of all splits that are given to the task meanwhile; and one micro-batch at a time."""
    task, running, most = Lengths(), [], []
    task.schedules = True
    forward = task.forward

    def find_out(chunks):
        if task.schedules:
            time.sleep(0.05)  # other splits are given meanwhile
            task.schedules = False
            raise NotScheduled
        running.append(len(chunks))
        most.append(len(running))
        time.sleep(0.005)
        running.pop()
        return forward(chunks)

    task.forward = find_out
    stages = Stages(task, {"text": "t"}, TokenBudget(12))
    batches = [Batch(pa.table({"t": [*TEXTS[i:], "forward"]})) for i in range(3)]
    with ThreadPoolExecutor(3) as calls:
        list(calls.map(stages.process, batches))
    for i, batch in enumerate(batches):
        assert batch.results["again"].to_pylist() == [*(t.upper() for t in TEXTS[i:]), None]
        assert list(batch.failures) == [len(TEXTS) - i]
        assert batch.stats["micro_batches"] > 5
        assert batch.stats["chunks"] == sum(-(-len(t) // 3) for t in [*TEXTS[i:], "forward"])
    assert max(most) == 1
