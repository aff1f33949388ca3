"""Rows that kill their process are found, in processes that may die; the others are answered."""

from __future__ import annotations

import re
import signal
from functools import partial

import pyarrow as pa
import pytest
from pipemill.actors.batch import Batch, Failure
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.faults.isolated_process import IsolatedProcess, ProcessDied
from pipemill.actors.faults.poison_rows import CrashIsolator, UnprocessableSplit

from tests.support.killers import ASSERT, LoadKillers
from tests.support.lengths import Lengths

STEPS = ("expand", "forward", "regroup")


def isolated(folder, texts, steps=(STEPS,), failures=(), dies=False, limit_s=300.0):
    batch = Batch(pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())}))
    batch.failures = dict(failures)
    load = LoadKillers(str(folder), dies, limit_s=limit_s)
    with CrashIsolator(partial(IsolatedProcess, load)) as isolation:
        for some in steps:
            batch = isolation.run(some, batch)
    return batch


def deaths(folder):
    return len(list(folder.iterdir()))


@pytest.mark.parametrize("steps", [(STEPS,), tuple((step,) for step in STEPS)])
def test_rows_that_kill_are_dead_letters_and_the_others_are_answered_in_order(tmp_path, steps):
    texts = [f"text {i}" for i in range(50)]
    texts[7], texts[31], texts[32] = "segfault in forward", "exit in expand", "kill in regroup"
    texts[12] = "assert in forward"
    texts[20], texts[40] = None, "raise in expand"
    read = Failure("read", "ValueError", "no such row")
    batch = isolated(tmp_path, texts, steps, {49: read})
    said = {row: (f.stage, f.error, f.message) for row, f in batch.failures.items()}
    assert said == {
        7: ("forward", "WorkerDied", "its process was killed by signal 11 (SIGSEGV)"),
        12: (
            "forward",
            "WorkerDied",
            "its process ended itself: AcceleratorError: " + " ".join(ASSERT.split()),
        ),
        20: ("expand", "ValueError", "column 'text' is null"),
        31: ("expand", "WorkerDied", "its process ended with exit status 3"),
        32: ("regroup", "WorkerDied", "its process was killed by signal 9 (SIGKILL)"),
        40: ("expand", "KeyError", "'this is expand'"),
        49: ("read", "ValueError", "no such row"),
    }
    assert batch.rows["n"].to_pylist() == list(range(50))
    expected = [None if row in said else text.upper() for row, text in enumerate(texts)]
    assert batch.results["again"].to_pylist() == expected
    # Two for each row, and one more where it might have been the OOM killer or a faulty GPU; one
    # piece holds two.
    assert deaths(tmp_path) <= 10


def test_a_split_without_rows_and_one_of_killing_rows_only_keep_the_schema(tmp_path):
    for texts in ([], ["exit in expand"], ["exit in forward", "leave in regroup"]):
        batch = isolated(tmp_path, texts)
        assert batch.results.schema == LoadKillers("")().task.results()
        assert sorted(batch.failures) == list(range(len(texts)))


def test_a_row_that_hangs_is_a_dead_letter_that_says_where(tmp_path):
    texts = ["one", "two", "hang in forward", "four"]
    batch = isolated(tmp_path, texts, limit_s=3)
    (failure,) = batch.failures.values()
    assert (failure.stage, failure.error) == ("forward", "WorkerDied")
    where = r"no progress in \d+ s of forward; it is at <lambda> \(killers.py:\d+\) < die "
    assert re.match(f"its process ended itself: {where}", failure.message), failure.message
    assert batch.results["again"].to_pylist() == ["ONE", "TWO", None, "FOUR"]
    assert deaths(tmp_path) == 2


def test_a_row_that_hangs_in_a_library_which_holds_the_interpreter_is_one_too(tmp_path, capfd):
    batch = isolated(tmp_path, ["clench in expand"], limit_s=3)
    assert batch.failures[0].error == "WorkerDied"
    assert "in die" in capfd.readouterr().err  # faulthandler's stacks


def test_a_split_of_which_every_row_kills_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("pipemill.actors.faults.poison_rows._DEATHS_WITHOUT_AN_ANSWER", 4)
    with pytest.raises(UnprocessableSplit, match="forward kills its process on every row"):
        isolated(tmp_path, ["exit in forward"] * 100)
    assert deaths(tmp_path) == 4


def test_a_model_that_dies_while_it_loads_blames_no_row(tmp_path):
    with pytest.raises(RuntimeError, match="stage load died 3 times: .*signal 9"):
        isolated(tmp_path, ["text"], dies=True)
    assert deaths(tmp_path) == 3


class Within:
    """A child in this process, which is said to die of some rows, or the first few times."""

    times: dict[str, int]

    def __init__(self, times: dict[str, int]) -> None:
        self.times = times
        self.stages = Stages(Lengths(), {"text": "text"}, TokenBudget(100))

    def run(self, steps, batch):
        for i in batch.ok_rows():
            text = batch.rows["text"][int(i)].as_py()
            if self.times.get(text, 0):
                self.times[text] -= 1
                raise ProcessDied("forward", -signal.SIGKILL)
        for step in steps:
            batch = getattr(self.stages, step)(batch)
        return batch

    def close(self):
        pass


def test_a_row_that_survives_alone_is_not_blamed():
    texts = [f"text {i}" for i in range(30)]
    # With its neighbours; then once alone, as when another process takes the memory; always.
    times = {"text 3": 1, "text 11": 2, "text 29": 99}
    batch = Batch(pa.table({"text": texts}))
    isolation = CrashIsolator(lambda: Within(times))  # type: ignore[arg-type, return-value]
    batch = isolation.run(STEPS, batch)
    assert list(batch.failures) == [29]
    expected = [text.upper() for text in texts[:29]]
    assert batch.results["again"].to_pylist() == [*expected, None]
    assert isolation.deaths == 1 + 2 + 3


def test_many_rows_that_kill_give_the_split_up(monkeypatch):
    monkeypatch.setattr("pipemill.actors.faults.poison_rows._DEATHS", 20)
    texts = [f"text {i}" for i in range(100)]
    times = dict.fromkeys(texts[::4], 99)
    isolation = CrashIsolator(lambda: Within(times))  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match="its rows killed 20 processes; the last: .*SIGKILL"):
        isolation.run(STEPS, Batch(pa.table({"text": texts})))
