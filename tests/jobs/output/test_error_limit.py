"""What the exit status says: over dead rows, interrupts, mistakes and models that can't load."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.storage.store import Store
from pipemill.jobs.cli.app import main
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import light


@pytest.fixture(autouse=True)
def lengths(monkeypatch):
    light.install(monkeypatch)


def told(folder, capsys, wanted, verb="run"):
    """Exit status, the JSON line if there is one, and stderr."""
    config = folder / f"{verb}.yaml"
    config.write_text(json.dumps(wanted))
    status = main([verb, str(config)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, json.loads(out.splitlines()[-1]) if out else None, err


def job(folder, texts, max_errors="default", **more):
    """Rows of one part, so that only the end tells."""
    wanted = light.job(folder, texts, 5000, **more)
    if max_errors == "default":
        del wanted["output"]["max_errors"]
    else:
        wanted["output"]["max_errors"] = max_errors
    return wanted


DEAD, DONE = "bad9", "good"


CASES = [
    (3, 0, "default", 1),
    (1, 0, "default", 1),
    (3, 0, 1.0, 1),
    (3, 0, 100, 1),
    (3, 0, None, 0),
    (0, 3, "default", 0),
    (2, 2, "default", 0),
    (100, 899, "default", 0),
    (100, 900, "default", 1),
    (50, 950, "default", 0),
    (2, 2, 0.05, 1),
    (2, 2, 0.5, 0),
    (2, 2, 1.0, 0),
    (2, 2, 1, 1),
    (1, 3, 1, 0),
    (1, 3, 0, 1),
    (1, 3, 0.0, 1),
    (1, 1999, 0, 1),
]


@pytest.mark.parametrize(
    ("dead", "done", "max_errors", "status", "on_error"),
    # Rows are counted before it matters what becomes of dead ones.
    [*((*case, "dead_letter") for case in CASES), *((*case, "null") for case in CASES[::4])],
)
def test_dead_rows_are_judged_at_the_end(
    tmp_path, capsys, dead, done, max_errors, status, on_error
):
    texts = [DEAD] * dead + [DONE] * done
    wanted = job(tmp_path, texts, max_errors, output={"on_error": on_error})
    for verb in ("run", "run", "retry"):  # again, with nothing left; and those that are dead
        found, report, err = told(tmp_path, capsys, wanted, verb)
        assert found == status
        assert (report["rows"], report["dead"]) == (dead + done, dead)
        assert sum(one["count"] for one in report["dead_letters"]) == dead
        if dead:
            assert f"{dead:,} × regroup: ValueError: bad9 is not healed" in err
        last = err.splitlines()[-1]
        if status == 0:
            assert "pipemill:" not in err
        elif not done:
            assert ("the only row failed" if dead == 1 else f"all {dead} rows failed") in last
            assert "run again" not in err
        else:
            assert f"{dead} of {dead + done:,} rows failed, more than output.max_errors" in last
            assert "run again" not in err


def test_a_run_that_is_stopped_on_its_way_tells_the_reasons(tmp_path, capsys):
    wanted = job(tmp_path, [DEAD, DONE] * 20, 0.2)
    wanted["output"]["rows_per_part"] = 10
    wanted["output"]["max_errors"] = 3
    status, report, err = told(tmp_path, capsys, wanted)
    assert (status, report) == (1, None)
    assert "5 of 10 rows failed, more than output.max_errors (3) allows." in err
    assert "5 × regroup: ValueError: bad9 is not healed (" in err
    assert err.splitlines()[-1].endswith("run again to resume")
    wanted["output"]["max_errors"] = 0.5
    status, report, _ = told(tmp_path, capsys, wanted)
    assert (status, report["dead"]) == (0, 20)


def test_what_failed_is_in_the_exception(tmp_path):
    with pytest.raises(pipemill.RunError, match="all 2 rows failed.*bad9 is not healed") as error:
        pipemill.run(job(tmp_path, [DEAD, "bad8"]))
    assert error.value.report.dead == 2
    with pytest.raises(pipemill.RunError) as error:
        pipemill.retry(job(tmp_path, [DEAD, "bad8"]))
    assert error.value.report.added["rows"] == 2
    healed = pipemill.retry({**job(tmp_path, []), "parameters": {"healed": 8}})
    assert (healed.done, healed.dead) == (1, 1)


def test_a_row_that_ends_the_run_does_not_say_run_again(tmp_path, capsys):
    wanted = job(tmp_path, [DONE, DEAD], output={"on_error": "raise"})
    status, _, err = told(tmp_path, capsys, wanted)
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("pipemill:")]
    assert line.startswith(f"pipemill: row 1 of {tmp_path}/in.parquet failed (output.on_error is")
    assert "bad9 is not healed. Correct that row, or set output.on_error" in line
    assert "run again" not in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no such architecture"), 2),
        (KeyError("bert"), 2),
        (ImportError("it requires the PIL library"), 2),
        (OSError("no file named model.safetensors"), 2),
        (FileNotFoundError(2, "No such file", "x"), 2),
        (MemoryError(), 1),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), 1),
        (OSError(5, "Input/output error"), 1),
        (ConnectionResetError(104, "reset"), 1),
        (LoadError("loading failed: the process died 3 times in a row"), 1),
    ],
)
@pytest.mark.parametrize("verb", ["run", "retry", "preview"])
def test_a_model_that_can_never_load_is_a_mistake(
    tmp_path, capsys, monkeypatch, error, status, verb
):
    wanted = job(tmp_path, [DONE, DEAD, DONE])
    if verb == "retry":
        pipemill.run(wanted)

    def fail(self):
        raise error

    monkeypatch.setattr(LoadTask, "__call__", fail)
    found, report, err = told(tmp_path, capsys, wanted, verb)
    assert (found, report) == (status, None)
    assert "loading failed" in err
    if status == 2:
        line = err.splitlines()[-1]
        assert line.startswith("pipemill: loading failed: ")
        assert line.endswith(f"(the model is {tmp_path}/model)")
        assert "again" not in err
    else:
        assert "again" in err


@pytest.mark.parametrize("verb", ["run", "retry"])
def test_an_interrupt_of_what_can_go_on_says_so(tmp_path, capsys, monkeypatch, verb):
    wanted = job(tmp_path, [DONE, DEAD])
    pipemill.run(wanted)
    if verb == "run":
        for part in (tmp_path / "out").glob("part-*"):
            part.unlink()

    def stop(self, rows, outputs):
        raise KeyboardInterrupt

    monkeypatch.setattr(light.Light, "regroup", stop)
    status, _, err = told(tmp_path, capsys, wanted, verb)
    assert (status, err.splitlines()[-1]) == (130, "pipemill: interrupted; run again to resume")


def test_an_interrupt_of_a_look_does_not(tmp_path, capsys, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(LoadTask, "__call__", stop)
    status, _, err = told(tmp_path, capsys, job(tmp_path, [DONE]), "preview")
    assert (status, err.splitlines()[-1]) == (130, "pipemill: interrupted")


def test_no_rows_at_all_are_a_success(tmp_path, capsys):
    job(tmp_path, ["a"])
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    status, report, _ = told(tmp_path, capsys, job(tmp_path, []))
    assert (status, report["rows"]) == (0, 0)


def test_without_a_verb_the_command_names_the_verbs(capsys):
    assert main([]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pipemill: a verb is missing: run, retry, ")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pipemill {pipemill.__version__}\n"


def test_read_and_write_tasks_that_cannot_load_say_it_like_actors(tmp_path):
    from pipemill.actors.batch import Batch
    from pipemill.actors.output.part_writer import PartSink
    from pipemill.actors.split import Split
    from pipemill.actors.split_result import SplitResult, results_to_table
    from pipemill.actors.workers.staged import ExpandWorker, RegroupWorker

    def load():
        raise ValueError("no tokenizer")

    class Source:
        def read(self, split):
            return Batch(pa.table({"text": ["a"]}))

    sink = PartSink(Store(str(tmp_path / "out")), [], "dead_letter")
    payload = Batch(pa.table({"text": ["a"]})).to_bytes()
    line = results_to_table([SplitResult(split=Split(0, "x", 1, "", 0, 1), payload=payload)])
    for worker in (ExpandWorker(load, Source(), sink), RegroupWorker(load, sink)):
        (told,) = worker(line).to_pylist()
        assert (told["cause"], told["fatal"]) == ("model", True)
        assert told["error"] == "loading failed: ValueError: no tokenizer"
    assert not list((tmp_path / "out").glob("part-*"))
