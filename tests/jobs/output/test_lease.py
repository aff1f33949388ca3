"""One run at a time per output: who is refused, who waits, and what the dead leave behind."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipemill.actors.storage.store import Store
from pipemill.jobs.output import lease as leases
from pipemill.jobs.output.lease import Lease
from pipemill.jobs.output.lease_owner import LeaseOwner, identify_owner

import pipemill
from tests.support import light

TEXTS = [f"text {i}" for i in range(100)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    light.install(monkeypatch)
    monkeypatch.setattr(leases, "EXPIRY_S", 1.0)
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(leases, "_LOOK_S", 0.05)


def file(out, number=1):
    return out / f"_pipemill/lease/{number:08d}.json"


def elsewhere(out, **changes) -> LeaseOwner:
    """A lease of a process on another machine."""
    holder = replace(identify_owner("run"), machine="another", host="node7", **changes)
    file(out).parent.mkdir(parents=True, exist_ok=True)
    file(out).write_bytes(holder.to_bytes())
    return holder


def started(wanted, tmp_path, parts=1):
    """A run in a separate process, which has written so many parts."""
    run = light.start("run", wanted, tmp_path, slow=0.1)
    until = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("part-*"))) < parts:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    return run


def test_a_second_run_is_refused_and_a_killed_one_is_replaced_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRY_S", 60.0)
    wanted = light.job(tmp_path, TEXTS)
    first = started(wanted, tmp_path)
    try:
        begun = time.monotonic()
        with pytest.raises(pipemill.RunError, match=rf"written by `pipemill run`.*{first.pid}"):
            pipemill.run(wanted)
        assert time.monotonic() - begun < 20
        second = light.start("run", wanted, tmp_path)
        out, err = second.communicate()
        assert (second.returncode, out) == (1, "")
        assert "Wait until that ends or stop it" in err
        assert "Traceback" not in err
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    left = 10 - len(list((tmp_path / "out").glob("part-*")))
    assert left, "it ended before it was killed"
    begun = time.monotonic()
    report = pipemill.run(wanted)
    assert time.monotonic() - begun < 20, "it waited for a dead process"
    assert report.added["splits"] == left
    assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == list(range(100))


def test_a_killed_process_that_is_not_yet_waited_for_is_dead(tmp_path):
    first = started(light.job(tmp_path, TEXTS), tmp_path)
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    with Lease(Store(str(tmp_path / "out"))) as lease:
        lease.acquire()
    first.communicate()


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_gives_its_lease_back(tmp_path, signal_):
    first = started(light.job(tmp_path, TEXTS), tmp_path)
    assert not json.loads(file(tmp_path / "out").read_text())["released"]
    first.send_signal(signal_)
    first.communicate()
    assert first.returncode == 130
    assert json.loads(file(tmp_path / "out").read_text())["released"]


def test_a_failed_run_gives_its_lease_back(tmp_path):
    texts = ["bad9"] * 100
    with pytest.raises(pipemill.RunError, match="rows failed"):
        pipemill.run(light.job(tmp_path, texts, output={"max_errors": 3}))
    assert json.loads(file(tmp_path / "out").read_text())["released"]


def test_with_nothing_left_to_do_no_lease_is_needed(tmp_path):
    wanted = light.job(tmp_path, TEXTS)
    pipemill.run(wanted)
    with Lease(Store(wanted["output"]["path"])) as other:
        other.acquire()
        assert pipemill.run(wanted).rows == 100
        assert pipemill.retry(wanted).rows == 100
        (tmp_path / "out").joinpath(sorted((tmp_path / "out").glob("part-*"))[3].name).unlink()
        with pytest.raises(pipemill.RunError, match="is being written by"):
            pipemill.run(wanted)
    assert pipemill.run(wanted).added["splits"] == 1


def test_another_job_is_refused_before_it_writes_its_plan(tmp_path):
    wanted = light.job(tmp_path, TEXTS)
    with Lease(Store(wanted["output"]["path"])) as other:
        other.acquire()
        with pytest.raises(pipemill.RunError, match="is being written by"):
            pipemill.run(wanted)
    assert not (tmp_path / "out/_pipemill/job.json").exists()


def test_what_another_run_planned_while_this_one_looked_is_read_again(tmp_path, monkeypatch):
    wanted = light.job(tmp_path, TEXTS)
    take = Lease.acquire

    def late(self):
        monkeypatch.setattr(Lease, "acquire", take)
        pipemill.run(light.job(tmp_path, TEXTS, parameters={"healed": 1}))
        take(self)

    monkeypatch.setattr(Lease, "acquire", late)
    with pytest.raises(pipemill.ConfigError, match=r"another job: parameters .*healed"):
        pipemill.run(wanted)
    assert pipemill.verify(str(tmp_path / "out")).ok


def test_a_holder_elsewhere_that_shows_no_sign_of_life_is_waited_for_and_replaced(tmp_path, capsys):
    elsewhere(tmp_path / "out")
    begun = time.monotonic()
    assert pipemill.run(light.job(tmp_path, TEXTS)).rows == 100
    assert time.monotonic() - begun > 1
    assert "waiting up to 1 s to see whether `pipemill run`" in capsys.readouterr().err
    assert [p.name for p in file(tmp_path / "out").parent.iterdir()] == ["00000002.json"]


def test_a_holder_elsewhere_that_lives_is_told_by_its_beats_whatever_its_clock_says(tmp_path):
    holder = elsewhere(tmp_path / "out", seen="2001-01-01T00:00:00+00:00")
    ended = threading.Event()

    def beat():
        for number in range(1, 100):
            if ended.wait(0.2):
                return
            file(tmp_path / "out").write_bytes(replace(holder, beat=number).to_bytes())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(pipemill.RunError, match="on node7 "):
            pipemill.run(light.job(tmp_path, TEXTS))
    finally:
        ended.set()
        thread.join()


def test_a_lease_that_was_half_written_when_its_writer_died_expires(tmp_path):
    file(tmp_path / "out").parent.mkdir(parents=True)
    file(tmp_path / "out").write_text('{"id": "3')
    assert pipemill.run(light.job(tmp_path, TEXTS)).rows == 100


def test_a_holder_that_slept_stops_when_another_has_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHT_SLOW", "0.02")
    wanted = light.job(tmp_path, TEXTS)

    def take_over():
        while not list((tmp_path / "out").glob("part-*")):
            time.sleep(0.01)
        other = replace(identify_owner("run"), host="node7")
        file(tmp_path / "out", 2).write_bytes(other.to_bytes())

    thread = threading.Thread(target=take_over)
    thread.start()
    with pytest.raises(pipemill.RunError, match=r"was taken over by .* on node7"):
        pipemill.run(wanted)
    thread.join()
    assert not json.loads(file(tmp_path / "out", 2).read_text())["released"]


@pytest.mark.parametrize("url", ["FOLDER", "memory://leases"])
def test_of_many_that_try_one_holds_it_at_a_time(tmp_path, url):
    url = f"{tmp_path}/out" if url == "FOLDER" else f"{url}{tmp_path}"
    inside, most, taken, trouble = [], [], [], []

    def worker():
        for _ in range(15):
            try:
                with Lease(Store(url)) as lease:
                    lease.acquire()
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()
                    taken.append(lease._number)
            except pipemill.RunError:
                time.sleep(0.003)
            except BaseException as error:
                trouble.append(error)

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not trouble
    assert max(most) == 1
    assert len(taken) > 5
    assert len(set(taken)) == len(taken), "two held the lease of one number"


def test_a_store_that_knows_no_conditional_write_still_has_one_holder(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    plain = MemoryFileSystem.pipe_file

    def without(self, path, value, mode="overwrite"):
        if mode == "create":
            raise NotImplementedError("501")
        plain(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", without)
    monkeypatch.setattr("pipemill.actors.storage.filesystem._SETTLE_S", 0.3)
    one, two = Lease(Store("memory://unconditional")), Lease(Store("memory://unconditional"))
    outcomes = []

    def take(lease):
        try:
            lease.acquire()
            outcomes.append("held")
        except pipemill.RunError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take, args=[lease]) for lease in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.release()
    two.release()
    assert sorted(outcomes) == ["held", "refused"]


@pytest.mark.parametrize(
    "error", [PermissionError("AccessDenied"), OSError("Forbidden: https://b/o/none\nno access")]
)
def test_a_store_that_forbids_deletes_is_refused_before_the_first_row(tmp_path, monkeypatch, error):
    from fsspec.implementations.memory import MemoryFileSystem

    def forbid(self, path):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "rm_file", forbid)
    wanted = light.job(tmp_path, TEXTS, output={"path": "memory://append-only/out"})
    with pytest.raises(pipemill.ConfigError, match="can't delete files in the output memory://app"):
        pipemill.run(wanted)
    assert not MemoryFileSystem().glob("memory://append-only/out/**/lease/*")


def test_a_process_number_that_was_given_again_is_not_the_holder(tmp_path):
    holder = replace(identify_owner("run"), pid=1, born="not that of init")
    file(tmp_path / "out").parent.mkdir(parents=True)
    file(tmp_path / "out").write_bytes(holder.to_bytes())
    assert pipemill.run(light.job(tmp_path, TEXTS)).rows == 100


def test_the_outputs_of_two_jobs_do_not_wait_for_each_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Lease(Store(str(tmp_path / "a/out"))) as other:
        other.acquire()
        assert pipemill.run(light.job(tmp_path / "b", TEXTS)).rows == 100
    assert pq.read_table(tmp_path / "b/in.parquet").schema.field("n").type == pa.int64()
