"""Run a command in a child process, so that every way in which it ends is explained.

Ray ends a driver from C++ (`_Exit(1)`, without a message) when its raylet or the head of its
cluster dies, and when a thread still uses a Ray that is shutting down. The kernel kills it when
memory runs out. Only another process can tell the user. The child reports its exit status after it
has written everything; the parent explains every other end, and forwards interrupts.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

# Of a key, of `kill`, and of a terminal that is closed; `nohup` has the last one ignored.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The signal that the parent forwards an interrupt as. Ctrl-C also reaches the child directly, from
# the terminal.
_FORWARDED = signal.SIGUSR1
# The number of interrupts at which the child is killed.
_LAST_INTERRUPT = 3
# How long the child may take to end after all is written: Ray's shutdown may wait forever.
_END_S = 120

# The pipe to the parent, in the child.
_parent: int | None = None
# The times each signal arrived in this process, and the interrupts that were raised for them. The
# same interrupt may arrive both directly and forwarded.
_arrived: Counter[int] = Counter()
_raised = 0
# Whether interrupts are only recorded for now.
_delays = False


def supervise(work: Callable[[], int], explain: Callable[[str, bool], None]) -> int:
    """Run `work` in a child process, and return its exit status. The child ends here.

    Args:
        work: calls `report_status` when everything is written.
        explain: writes why the child ended, if it did not call that. The second argument tells
            whether its messages are lines of JSON.
    """
    if not hasattr(os, "fork"):
        return work()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    alive, reports = os.pipe(), os.pipe()
    with _block_signals():
        child = os.fork()
        if child == 0:
            _become_child(alive, reports)
        else:
            supervisor = _Supervisor(child, reports[0], explain)
            os.close(reports[1])
    if child == 0:
        _end_child(work())
    return supervisor.wait()


def _end_child(status: int) -> NoReturn:
    """End this process without the destructors of C++, which abort it while threads still run."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def handle_interrupts() -> None:
    """Raise KeyboardInterrupt in this process on each of the signals that ask for an end."""
    global _raised
    _arrived.clear()
    _raised = 0

    def interrupt(number: int, _: object) -> None:
        _arrived[number] += 1
        if _arrived[number] > _raised and not _delays:
            _silence_other_exceptions()
            check_interrupts()

    for number in (*_SIGNALS, _FORWARDED):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Delay interrupts to the end of a block, such as an import in Rust, which would panic."""
    global _delays
    _delays = True
    try:
        yield
    finally:
        _delays = False
        check_interrupts()


def check_interrupts() -> None:
    """Raise KeyboardInterrupt if an interrupt was lost, as in a destructor or a callback."""
    global _raised
    if _arrived:
        _raised = max(_arrived.values())
        raise KeyboardInterrupt


def find_command_pid() -> int:
    """Return the process id by which a user knows the command: in a child, the parent's."""
    return os.getpid() if _parent is None else os.getppid()


def report_status(status: int) -> None:
    """Report to the parent that everything is written, and the exit status.

    Interrupts are ignored after that, and this process is killed if it does not end.
    """
    if _parent is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own work: C++ may block Python
        signal.alarm(_END_S)
        for number in (*_SIGNALS, _FORWARDED):
            signal.signal(number, signal.SIG_IGN)
    _report(f"status {status}")


def report_ray() -> None:
    """Report to the parent that Ray runs in this process, and may end it."""
    _report("ray")


def report_json() -> None:
    """Report to the parent that messages are lines of JSON."""
    _report("json")


def _report(line: str) -> None:
    if _parent is not None:
        with suppress(OSError):
            os.write(_parent, f"{line}\n".encode())


def _silence_other_exceptions() -> None:
    """Print no errors that an interrupt causes in threads and destructors."""
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None


@contextmanager
def _block_signals() -> Iterator[None]:
    """Block signals until both processes have their handlers."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, _FORWARDED))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _become_child(alive: tuple[int, int], reports: tuple[int, int]) -> None:
    global _parent
    os.close(alive[1])
    os.close(reports[0])
    _parent = reports[1]
    handle_interrupts()
    threading.Thread(target=_die_with_parent, args=(alive[0],), daemon=True).start()


def _die_with_parent(alive: int) -> None:
    os.read(alive, 1)  # returns when the parent's end is closed
    os.kill(os.getpid(), signal.SIGKILL)


class _Supervisor:
    def __init__(self, child: int, reports: int, explain: Callable[[str, bool], None]) -> None:
        self.child, self.reports, self._explain = child, reports, explain
        self.interrupts = 0
        os.set_blocking(reports, False)
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._forward)

    def wait(self) -> int:
        """Wait for the child, and return its exit status; explain an end without one."""
        ended = self._wait_for_end()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        reports = self._read_reports()
        statuses = [line.split()[1] for line in reports if line.startswith("status ")]
        if statuses:
            return int(statuses[-1])
        as_json = "json" in reports
        if self.interrupts:
            self._explain("interrupted; run again to resume", as_json)
            return 130
        end = _describe_end(os.waitstatus_to_exitcode(ended), "ray" in reports)
        self._explain(end, as_json)
        return 1

    def _wait_for_end(self) -> int:
        """Wait until the child has ended, and return its wait status.

        An interrupt that comes just before a `waitpid` that blocks would be handled after it, so
        signals are also written to a pipe.
        """
        arrived, arrives = os.pipe()
        os.set_blocking(arrives, False)
        signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            pid, ended = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return ended
            select.select([arrived], [], [])
            os.read(arrived, 4096)

    def _forward(self, *_: object) -> None:
        self.interrupts += 1
        last = self.interrupts >= _LAST_INTERRUPT
        with suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL if last else _FORWARDED)

    def _read_reports(self) -> list[str]:
        try:
            return os.read(self.reports, 65536).decode().splitlines()
        except BlockingIOError:
            return []


def _describe_end(status: int, with_ray: bool) -> str:
    if status >= 0:
        ended = f"the process ended with status {status} without a reason"
        if with_ray:
            ended = "Ray ended the process: its raylet or the head of its cluster died"
        return f"{ended}; run again to resume"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    memory = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"the process was killed by signal {-status}, {name}{memory}; run again to resume"
