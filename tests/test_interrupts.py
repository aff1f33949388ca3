"""An interrupt does not leave a library half imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from pipemill.interrupts import delay_interrupts

# A notebook whose user interrupts a cell as torch is imported, and runs it again.
CELLS = """
import os, signal, sys, threading, time
import pipemill

def interrupt():
    while "torch._C" not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

def cell():
    return pipemill.run(
        task="text-classification", model=sys.argv[1], input=["a b", "c d"], output=sys.argv[2],
        actors={"placement": "local"},
    )

threading.Thread(target=interrupt).start()
try:
    cell()
except pipemill.RunInterrupted as error:
    print(error)
print(cell().done)
"""


def test_an_interrupted_import_of_torch_does_not_end_the_process(models, tmp_path):
    command = [sys.executable, "-c", CELLS, models["text-classification"], str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted; run again to resume\n2\n"), (
        ended.stderr
    )


@pytest.fixture
def notebook():
    """Interrupts as in a notebook; another test may have left others."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("notebook")
def test_an_interrupt_arrives_at_the_end_of_the_block():
    reached = []

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        reached.append(True)

    def delayed() -> None:
        with delay_interrupts(), delay_interrupts():
            work()

    for cell in (delayed, work):
        with pytest.raises(KeyboardInterrupt):
            cell()
    assert reached == [True]


def test_another_thread_delays_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with delay_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
