"""Several tasks in turn: what each gets, and rows that fail in one of them or kill its process."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.batch import Batch
from pipemill.actors.compute.cascade import Cascade, CascadeStep
from pipemill.actors.compute.row_condition import RowCondition
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.jobs.execution import single_process
from pipemill.pipelines.load_cascade import LoadCascade, LoadStep

from tests.jobs.execution import test_killer_rows as killer_rows
from tests.support.killers import LoadKillers
from tests.support.lengths import Lengths

SCHEMA = pa.schema([("text", pa.string()), ("n", pa.int64())])


class Short(Lengths):
    """The same, but long texts fail."""

    def regroup(self, rows, outputs):
        if any(len(text) > 3 for text in rows["text"].to_pylist()):
            raise ValueError("too long")
        return super().regroup(rows, outputs)


def step(name, where=None, task=Lengths):
    stages = Stages(task(), {"text": "text"}, TokenBudget(100))
    condition = None if where is None else RowCondition(where)
    return CascadeStep(name=name, prefix=f"{name}_", stages=stages, condition=condition)


texts = st.sampled_from(["a", "bcd", "efgh", "expand", "forward", "regroup", None])


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.integers(0, 3)), max_size=12))
def test_each_gets_the_rows_that_its_condition_and_the_tasks_before_let_through(values):
    rows = pa.Table.from_pylist([{"text": text, "n": n} for text, n in values], SCHEMA)
    cascade = Cascade(
        [step("one", "n > 0"), step("two", "one_length > 1"), step("three", "n < 2", Short)],
        SCHEMA,
    )
    batch = cascade.process(Batch(rows))
    wanted, failed = [], {}
    for number, (text, n) in enumerate(values):
        answers = dict.fromkeys(cascade_columns(cascade))
        for name, asks in (("one", n > 0), ("two", None), ("three", n < 2)):
            asks = (answers["one_length"] or 0) > 1 if asks is None else asks
            if not asks or number in failed:
                continue
            if text is None:
                failed[number] = f"expand of {name}"
            elif text in ("expand", "forward", "regroup"):
                failed[number] = f"{text} of {name}"
            elif name == "three" and len(text) > 3:
                failed[number] = "regroup of three"
            else:
                answers |= {f"{name}_again": text.upper(), f"{name}_length": len(text)}
        wanted.append(dict.fromkeys(answers) if number in failed else answers)
    assert batch.results.to_pylist() == wanted
    assert {row: failure.stage for row, failure in batch.failures.items()} == failed
    assert batch.stats["rows_of_one"] == sum(n > 0 for _, n in values)


def cascade_columns(cascade):
    return [f"{name}_{column}" for name in cascade.steps for column in ("again", "length")]


def test_columns_of_one_name_and_unknown_ones_in_conditions_are_said():
    plain = CascadeStep(name="plain", prefix="", stages=step("x").stages)
    with pytest.raises(ValueError, match="plain and other both add the column 'again': give one"):
        Cascade([plain, CascadeStep(name="other", prefix="", stages=plain.stages)], SCHEMA)
    with pytest.raises(ValueError, match="where of two: .* names 'three_length', which is no col"):
        Cascade([step("one"), step("two", "three_length > 2"), step("three")], SCHEMA)


def test_a_row_that_kills_the_process_of_a_later_task_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(single_process, "RAY_S", math.inf)  # however long it takes
    conditions = {"one": "n != 75", "two": "one_length > 1 or n == 75"}
    killers = LoadKillers(str(tmp_path / "deaths"))
    load = LoadCascade(
        steps=tuple(
            LoadStep(name=name, prefix=f"{name}_", where=where, load=killers)
            for name, where in conditions.items()
        ),
        schema=killer_rows.SCHEMA.serialize().to_pybytes(),
    )
    monkeypatch.setattr(killer_rows, "LoadKillers", lambda *_: load)
    killing = {75: "segfault in regroup", 120: "exit in forward"}
    lines = killer_rows.run(tmp_path, "single", killing=killing)
    assert all(line.error is None for line in lines)
    table = ds.dataset(tmp_path / "out").to_table()
    live = [n for n in range(killer_rows.ROWS) if n not in (75, 120)]
    assert table["n"].to_pylist() == live
    assert table["two_again"].to_pylist() == [text.upper() for text in table["text"].to_pylist()]
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert [(letter["n"], letter["stage"], letter["error"]) for letter in letters] == [
        (75, "two", "WorkerDied"),
        (120, "one", "WorkerDied"),
    ]
