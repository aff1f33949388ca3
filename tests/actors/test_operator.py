"""The operator that `pipemill.apply` maps over blocks, without Ray."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pipemill.actors.batch import RowError
from pipemill.actors.operator import BoundLoad, TaskOperator

from tests.support.killers import LoadKillers

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


@dataclass(frozen=True)
class Bind:
    """Binds the task of `Killers`, which needs no model. deaths: a folder."""

    deaths: str

    def __call__(self, schema: pa.Schema) -> BoundLoad:
        return BoundLoad(LoadKillers(self.deaths), pa.schema([("text", pa.string())]))


@pytest.fixture
def operator(tmp_path):
    made = []

    def make(on_error: str = "column", schema: pa.Schema | None = None) -> TaskOperator:
        made.append(TaskOperator(Bind(str(tmp_path)), "error", on_error, schema))
        return made[-1]

    yield make
    for one in made:
        if one._process is not None:
            one._process.close()


def block(texts: list[str | None], start: int = 0) -> pa.Table:
    numbers = range(start, start + len(texts))
    return pa.table({"n": numbers, "text": texts}, schema=SCHEMA)


def expected(texts: list[str | None]) -> list[str | None]:
    return [None if text is None else text.upper() for text in texts]


def test_blocks_of_any_size_get_the_same_answers_in_order(operator):
    texts = [f"text {n}" * (n % 7 + 1) if n % 5 else None for n in range(40)]
    work = operator()
    whole = work(block(texts))
    assert whole.column_names == ["n", "text", "again", "length", "error"]
    assert whole["n"].to_pylist() == list(range(40))
    assert whole["again"].to_pylist() == expected(texts)
    errors = whole["error"].to_pylist()
    assert [error is None for error in errors] == [text is not None for text in texts]
    assert errors[0] == "expand: ValueError: column 'text' is null"
    for sizes in ([1] * 40, [0, 39, 0, 1], [13, 27]):
        at, pieces = 0, []
        for size in sizes:
            pieces.append(work(block(texts[at : at + size], at)))
            at += size
        assert pa.concat_tables(pieces).equals(whole)


def test_a_block_is_computed_in_pieces_that_fit_in_memory(operator, monkeypatch):
    texts = [f"text {n}" for n in range(500)]
    work = operator()
    whole = work(block(texts))
    monkeypatch.setattr("pipemill.actors.operator._PIECE", 1000)
    assert work(block(texts)).combine_chunks().equals(whole.combine_chunks())


def test_a_block_of_nulls_without_a_type_is_all_failures(operator):
    work = operator()
    work(block(["text"]))
    result = work(pa.table({"n": [1, 2], "text": pa.nulls(2)}))
    assert result["error"].to_pylist() == ["expand: ValueError: column 'text' is null"] * 2
    assert result["again"].to_pylist() == [None, None]


def test_rows_that_kill_fail_alone(operator, tmp_path):
    texts = [f"text {n}" for n in range(20)]
    texts[3], texts[11], texts[19] = "segfault in forward", "exit in expand", "kill in regroup"
    work = operator(schema=SCHEMA)
    result = work(block(texts))
    errors = dict(enumerate(result["error"].to_pylist()))
    assert {row for row, error in errors.items() if error} == {3, 11, 19}
    assert errors[3].startswith("forward: WorkerDied: its process was killed by signal 11")
    assert errors[11] == "expand: WorkerDied: its process ended with exit status 3"
    wanted = [None if row in (3, 11, 19) else text.upper() for row, text in enumerate(texts)]
    assert result["again"].to_pylist() == wanted
    assert work(block(["again"]))["again"].to_pylist() == ["AGAIN"]


def test_the_process_ends_with_the_actor(tmp_path):
    work = TaskOperator(Bind(str(tmp_path)), "error", "column", SCHEMA)
    process = psutil.Process(work._process._process.pid)
    work._process._process.stdin.close()  # as when the actor dies
    process.wait(timeout=20)


def test_a_failure_ends_the_pipeline_if_that_is_wanted(operator):
    with pytest.raises(RowError, match=r"a row failed \(on_error is raise\): expand: KeyError"):
        operator("raise")(block(["text", "expand"]))


def test_a_block_without_the_column_is_named(operator):
    work = operator()
    with pytest.raises(RowError, match="a block lacks the column 'text'.* columns: n, other"):
        work(pa.table({"n": [1], "other": ["a"]}))


def test_a_block_without_columns_stays_as_it_is(operator):
    assert operator()(pa.table({})).num_rows == 0


def test_input_columns_with_a_name_that_is_added_are_renamed(operator):
    rows = pa.table({"text": ["a"], "error": ["theirs"], "again": [1]})
    result = operator()(rows)
    assert result.column_names == ["text", "input_error", "input_again", "again", "length", "error"]
    assert result["input_error"].to_pylist() == ["theirs"]
    assert result["error"].to_pylist() == [None]


@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())],
)
def test_a_text_of_any_type_is_computed_and_stays_as_it_is(operator, kind):
    texts = pa.array(["a", None, "b"]).cast(kind)
    result = operator()(pa.table({"text": texts}))
    assert result["again"].to_pylist() == ["A", None, "B"]
    assert result["text"].type == kind


def test_an_error_column_that_the_task_adds_is_said(tmp_path):
    work = TaskOperator(Bind(str(tmp_path)), "again", "column")
    with pytest.raises(RowError, match="error_column 'again' is a column that the task adds"):
        work(block(["a"]))


def test_two_calls_share_the_process_and_survive_the_row_of_one(operator, tmp_path):
    work = operator(schema=SCHEMA)
    first = work._process
    blocks = [block([f"text {n}" for n in range(30)]), block(["a", "kill in forward", "b"])]
    with ThreadPoolExecutor(2) as calls:
        good, bad = calls.map(work, blocks)
    assert good["again"].to_pylist() == [f"TEXT {n}" for n in range(30)]
    assert bad["again"].to_pylist() == ["A", None, "B"]
    assert work(block(["c"]))["again"].to_pylist() == ["C"]
    assert not first.is_alive
    assert len(list(Path(tmp_path).glob("*.forward"))) >= 2  # killed twice: not by another's row


def test_a_row_that_asks_its_process_to_end_fails_alone(operator):
    result = operator()(block(["a", "sysexit in forward", "b"]))
    assert result["again"].to_pylist() == ["A", None, "B"]
    message = "forward: WorkerDied: its process ended with exit status 5"
    assert result["error"].to_pylist() == [None, message, None]
