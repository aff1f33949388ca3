"""Rows that kill their worker: on Ray, and in the user's own process."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.output.part_writer import PartSink
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.sources.split_ranges import SplitRange
from pipemill.actors.split_result import SplitResult
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution import single_process
from pipemill.jobs.execution.placement import run_splits
from pipemill.jobs.execution.split_work import SplitWork
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

from tests.support.killers import KillingSource, LoadKillers

ROWS, PER_SPLIT = 150, 50
# Of the three splits one has several ways, one has those by a signal, and one has none.
KILLING = {
    3: "segfault in forward",
    20: "exit in expand",
    30: "assert in forward",
    49: "leave in expand",
    60: "kill in forward",
    75: "segfault in regroup",
}
# Enough where Ray starts the workers: a way in each stage, and one by which a worker ends itself.
ON_RAY = {n: text for n, text in KILLING.items() if n in (20, 30, 75)}
MESSAGES = {
    "segfault": "signal 11 (SIGSEGV)",
    "exit": "exit status 3",
    "assert": "ended itself: AcceleratorError: CUDA error: device-side assert",
    "leave": "exit status 0",
    "kill": "signal 9 (SIGKILL)",
}
SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def run(
    folder: Path,
    placement: str,
    *,
    dies: bool = False,
    rows: int = ROWS,
    killing: dict[int, str] = KILLING,
    unread: int | None = None,
) -> list[SplitResult]:
    """The results of the splits; the same call again does what is left."""
    source = folder / "in.parquet"
    if not source.exists():
        (folder / "deaths").mkdir()
        texts = [killing.get(n, f"text {n}") for n in range(ROWS)]
        pq.write_table(pa.table({"n": range(ROWS), "text": texts}, schema=SCHEMA), source)
    plan = Plan("parquet", SCHEMA)
    file = list_files(str(source), "auto", {}, "/nowhere")[0][0]
    cuts = range(0, rows, PER_SPLIT)
    plan.add(SplitRange(file, i, i + PER_SPLIT, PER_SPLIT) for i in cuts)
    read = open_source("parquet", {}, SCHEMA)
    work = SplitWork(
        placement=placement,
        load=LoadKillers(str(folder / "deaths"), dies),
        source=read if unread is None else KillingSource(read, unread),
        sink=PartSink(Store(str(folder / "out")), ["n", "text"], "dead_letter"),
        actors=ActorsSection(num_gpus=0, num_cpus=0.5, max=1 if dies else 2),
    )
    return list(run_splits(work, plan.splits))


def deaths(folder: Path) -> list[str]:
    return [file.name.partition(".")[2] for file in (folder / "deaths").iterdir()]


def attempts(folder: Path) -> list[str]:
    names = sorted(file.name for file in (folder / "out/_pipemill/attempts").iterdir())
    return [name for name in names if not name.startswith(".")]  # its process died writing it


def check_output(folder: Path, rows: int = ROWS, killing: dict[int, str] = KILLING) -> None:
    table = ds.dataset(folder / "out").to_table()
    assert table["n"].to_pylist() == [n for n in range(rows) if n not in killing]
    assert table["again"].to_pylist() == [text.upper() for text in table["text"].to_pylist()]
    letters = ds.dataset(folder / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert {letter["n"]: letter["stage"] for letter in letters} == {
        n: text.split(" in ")[1] for n, text in killing.items()
    }
    assert {letter["error"] for letter in letters} == {"WorkerDied"}
    said = {letter["n"]: letter["message"] for letter in letters}
    for n, text in killing.items():
        assert MESSAGES[text.partition(" ")[0]] in said[n]
    assert attempts(folder) == []


@pytest.mark.parametrize("placement", ["fused", "staged"])
def test_they_are_found_and_the_others_answered(tmp_path, ray_session, placement):
    check_found(tmp_path, placement, ON_RAY)


def test_they_are_found_in_one_process_without_ray(tmp_path, monkeypatch):
    monkeypatch.setattr(single_process, "RAY_S", math.inf)  # however long it takes
    check_found(tmp_path, "single", KILLING)


def check_found(tmp_path, placement, killing):
    lines = run(tmp_path, placement, killing=killing)
    assert all(line.error is None for line in lines)
    # Without a number: the part was written when another split of that actor killed it.
    told = [line for line in lines if line.rows is not None]
    assert [line.rows for line in told] == [PER_SPLIT] * len(told)
    assert len(lines) == ROWS // PER_SPLIT
    check_output(tmp_path, killing=killing)
    # Of workers two for a split (of each operator); in a process of their own two for a row, and
    # one more for a SIGKILL; and once more where another split killed the actor meanwhile.
    operators = 3 if placement == "staged" else 1
    assert len(deaths(tmp_path)) <= 2 * 2 * operators + 2 * (2 * len(killing) + 1)


def test_a_split_that_kills_while_it_is_read_is_left_undone_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(single_process, "RAY_S", math.inf)
    results = run(tmp_path, "single", killing={}, unread=1)
    assert [(result.split.number, result.rows) for result in results] == [
        (0, PER_SPLIT), (1, None), (2, PER_SPLIT),
    ]  # fmt: skip
    assert "stage read died 3 times: its process was killed by signal 9" in results[1].error
    assert not results[1].fatal


def test_a_model_that_kills_every_actor_at_load_ends_the_run(tmp_path, ray_session):
    check_load(tmp_path, "fused")


def test_a_model_that_kills_every_process_at_load_ends_the_run(tmp_path):
    check_load(tmp_path, "single")


def check_load(tmp_path, placement):
    lines = run(tmp_path, placement, dies=True)
    assert "died 3 times in a row while it loaded" in lines[0].error
    assert lines[0].fatal
    assert len(deaths(tmp_path)) == 3
    assert attempts(tmp_path) == []


def test_a_lost_device_does_not_end_the_users_own_process(tmp_path):
    """One row of the second split loses it: the rest is computed in another process."""
    code = (
        f"import sys, pathlib; from {__name__} import KILLING, run\n"
        "KILLING.clear(); KILLING[60] = 'assert in forward'\n"
        "print(len(run(pathlib.Path(sys.argv[1]), 'local')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"3\n"), done.stderr.decode()
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["n"].to_pylist() == [n for n in range(ROWS) if n != 60]
    assert table["again"].to_pylist() == [text.upper() for text in table["text"].to_pylist()]
    (letter,) = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert (letter["n"], letter["error"]) == (60, "WorkerDied")
    assert "device-side assert triggered" in letter["message"]
    assert len(deaths(tmp_path)) == 3 + 1  # one in the user's process, three in others
    assert attempts(tmp_path) == []


def test_in_the_users_own_process_the_run_after_the_second_death_finds_them(tmp_path):
    some = {n: KILLING[n] for n in (3, 20, 60, 75)}
    code = (
        f"import sys, pathlib; from {__name__} import KILLING, PER_SPLIT, run\n"
        "del KILLING[30], KILLING[49]\n"
        "print(len(run(pathlib.Path(sys.argv[1]), 'local', rows=2 * PER_SPLIT)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    for status in (3, 3, -signal.SIGKILL, -signal.SIGKILL):  # two for each of the splits
        assert subprocess.run(command, capture_output=True).returncode == status
        assert attempts(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "2\n"
    check_output(tmp_path, 2 * PER_SPLIT, some)
