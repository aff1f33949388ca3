"""An interrupt leaves nothing halfway and is not lost, and the call can be made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import tqdm
from tqdm.contrib.concurrent import thread_map

from pipemill.interrupts import finish_critical_sections

# A notebook whose user interrupts a cell while a library is imported, and runs it again.
CELLS = """
import os, signal, sys, threading, time
import pipemill

def interrupt():
    while sys.argv[1] not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

def cell():
    return pipemill.run(
        task="text-classification", model=sys.argv[3], input=["a b", "c d"] * 300,
        output=sys.argv[4], actors={"placement": sys.argv[2]},
    )

threading.Thread(target=interrupt).start()
try:
    cell()
except pipemill.RunInterrupted as error:
    print(error)
print(cell().done)
"""


@pytest.mark.parametrize(
    ("module", "placement"), [("torch._C", "local"), ("ray._private.worker", "auto")]
)
def test_a_cell_that_was_interrupted_in_an_import_runs_again(module, placement, models, tmp_path):
    arguments = [module, placement, models["text-classification"], str(tmp_path / "out")]
    command = [sys.executable, "-c", CELLS, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted; run again to resume\n600\n"), (
        ended.stderr
    )


# As if the interrupt came while Ray's C++ code was at work: Python handles it after that.
IN_CORE = """
import ray
make = ray._raylet.CoreWorker

def interrupt_after(*arguments, **keywords):
    ray._raylet.CoreWorker = make
    core = make(*arguments, **keywords)
    os.kill(os.getpid(), signal.SIGINT)
    return core

ray._raylet.CoreWorker = interrupt_after
"""


def test_a_cell_that_was_interrupted_as_ray_was_joined_runs_again(models, tmp_path):
    code = CELLS.replace("threading.Thread(target=interrupt).start()", IN_CORE)
    arguments = ["", "fused", models["text-classification"], str(tmp_path / "out")]
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted; run again to resume\n600\n"), (
        ended.stderr
    )


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Interrupts as in a notebook, since another test may have left others; and a module."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    code = "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep({})\nwhole = True\n"
    for name, seconds in (("long_import", 0.2), ("short_import", 0)):
        (tmp_path / f"{name}.py").write_text(code.format(seconds))
    (tmp_path / "outer_import.py").write_text(
        "from pipemill.interrupts import finish_critical_sections\n"
        "with finish_critical_sections():\n    import short_import\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize(
    ("name", "after_s"), [("long_import", 10), ("short_import", 0), ("outer_import", 0)]
)
def test_an_interrupt_waits_for_the_end_of_an_import(name, after_s):
    def cell() -> None:
        with finish_critical_sections(), finish_critical_sections():
            __import__(name)
            threading.Event().wait(after_s)  # only a signal wakes it

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cell()
    assert time.monotonic() - started < 5
    assert sys.modules.pop(name).whole
    sys.modules.pop("short_import", None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    time.sleep(0.1)  # it does not come once more


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Screen:
    flush = write = staticmethod(lambda *text: interrupt())


class Freed:
    def __del__(self) -> None:
        interrupt()


class Named:
    """What a weak reference may be of."""


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("section", ["draw", "free", "call back"])
def test_an_interrupt_waits_for_the_end_of_a_critical_section(section):
    passed = []

    def cell() -> None:
        freed, named = Freed() if section == "free" else None, Named()
        reference = weakref.finalize(named, interrupt if section == "call back" else int)
        with finish_critical_sections():
            if section == "draw":  # its lock is taken meanwhile
                tqdm.tqdm(total=1, file=Screen())
            del freed, named
            passed.append(reference.alive)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        cell()
    assert passed == [False]


after_fork: list[Callable[[], None]] = []
os.register_at_fork(after_in_parent=lambda: after_fork and after_fork.pop()())


@pytest.mark.usefixtures("notebook")
def test_an_interrupt_in_a_hook_of_a_fork_is_not_lost():
    """Ray starts its processes with a `preexec_fn`, as the main thread waits."""

    def cell() -> None:
        after_fork.append(interrupt)
        with finish_critical_sections():
            subprocess.run([sys.executable, "-c", ""], preexec_fn=int, check=False)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        cell()


@pytest.mark.usefixtures("notebook")
def test_an_interrupt_outside_a_critical_section_comes_at_once():
    def cell() -> None:
        with finish_critical_sections():
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it did not come")

    with pytest.raises(KeyboardInterrupt):
        cell()


@pytest.mark.usefixtures("notebook")
def test_an_interrupt_does_not_wait_for_the_end_of_a_download():
    """`datasets` downloads many files so."""

    def download(file: int) -> None:
        if file == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        done.append(file)
        time.sleep(0.05)

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), finish_critical_sections():
        thread_map(download, range(100), max_workers=1, disable=True)
    assert len(done) < 50
