"""Say what is to blame for an exception: a row, the memory, this process, or the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, TypeVar

from pipemill.errors import error_message

Error = TypeVar("Error", bound=BaseException)

# row: other rows may succeed. memory: it ran out; fewer rows at once may succeed. process: another
# process may succeed with the same rows. run: every process and every row would fail.
Blame = Literal["row", "memory", "process", "run"]

# What torch, cuBLAS, cuDNN, Triton and cuFFT say when the device reports an error.
_DEVICE_ERROR = re.compile(
    r"\b(CUDA|HIP)( driver| runtime)? error\b|device-side assert|Triton Error \[(CUDA|HIP)\]"
    r"|\b(CUBLAS|CUDNN|CUSPARSE|CUSOLVER|HIPBLAS)_STATUS_[A-Z]+|\bCUFFT_[A-Z]+",
    re.IGNORECASE,
)
# Errors of a call that the device refused: the next call works.
_REFUSED = re.compile(
    r"invalid configuration argument|invalid argument|too many resources requested"
    r"|STATUS_(INVALID_VALUE|NOT_SUPPORTED|BAD_PARAM)|CUFFT_(INVALID|NOT_SUPPORTED)",
    re.IGNORECASE,
)
# Errors of a torch or a driver that does not fit the device.
_MISMATCH = re.compile(
    r"no kernel image is available|driver version is insufficient|invalid device function"
    r"|forward compatibility was attempted|STATUS_ARCH_MISMATCH",
    re.IGNORECASE,
)

# In messages of torch on a GPU, of torch, oneDNN and C++ on a CPU, and of cuBLAS; lower case.
SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
    "bad_alloc",
    "alloc_failed",
    # Before torch 2.14 in a part of a GPU (MIG): the driver refuses what the message would say.
    "nvml_success == ",
)
# The names of the classes that torch raises for it.
_CLASSES = ("OutOfMemoryError", "AcceleratorError", "RuntimeError")


class JudgedError(RuntimeError):
    """An error that says what is to blame; its message may quote what happened elsewhere."""

    blame: Blame = "row"


class MediaAway(JudgedError):
    """The server of media that rows name does not answer. Other splits may not need it."""

    blame = "run"


def find_blame(error: BaseException) -> Blame:
    """Return what is to blame for an exception of a stage.

    After most errors of a GPU every further call of the process fails, whatever the row. The error
    of a library that is not installed says that no row is at fault (`no_rows_fault`). An error that
    is not an `Exception` stops the run, with two exceptions: a tokenizer written in Rust panics
    with a class derived from BaseException, and user code may raise those that end coroutines.
    """
    if type(error).__name__ in ("PanicException", "GeneratorExit", "CancelledError"):
        return "row"
    if isinstance(error, JudgedError):
        return error.blame
    if getattr(error, "no_rows_fault", False) or not isinstance(error, Exception):
        return "run"
    if is_out_of_memory(error):
        return "memory"
    # A pipeline may have caught the device's error, and raised another one.
    for link in list_causes(error):
        blame = _blame_of_device_error(link)
        if blame is not None:
            return blame
    return "row"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out.

    torch raises a special error on a GPU, and a plain RuntimeError on a CPU.
    """
    if isinstance(error, RuntimeError):  # others may quote a row that mentions memory
        return any(sign in error_message(error).lower() for sign in SIGNS)
    return isinstance(error, MemoryError)


def is_memory_failure(error: str, message: str) -> bool:
    """Return whether a row did not fit in memory, by the name of the error's class and message."""
    signs = any(sign in message.lower() for sign in SIGNS)
    return error == "MemoryError" or (signs and error in _CLASSES)


def is_row_error(error: BaseException) -> bool:
    """Return whether a row may be at fault, so that other rows may succeed."""
    return find_blame(error) in ("row", "memory")


def blame_column(error: Error, name: str) -> Error:
    """Note in an exception which of the task's columns holds the value that causes it."""
    error.blamed_column = name  # type: ignore[attr-defined]
    return error


def find_blamed_column(error: BaseException) -> str:
    """Return the task's name of the column that `blame_column` noted, or an empty text."""
    return str(getattr(error, "blamed_column", ""))


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and those that led to it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _blame_of_device_error(error: BaseException) -> Blame | None:
    # `torch.AcceleratorError` is a RuntimeError, too. Errors of other classes may quote a row.
    if not isinstance(error, RuntimeError):
        return None
    message = error_message(error)
    if is_out_of_memory(error) or not _DEVICE_ERROR.search(message):
        return None
    if _MISMATCH.search(message):
        return "run"
    return "row" if _REFUSED.search(message) else "process"
