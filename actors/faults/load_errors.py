"""Explain in one line why a model can't be loaded, and whether another try may succeed."""

from __future__ import annotations

import re

from pipemill.errors import StoreError, error_message

from .blame import SIGNS, JudgedError, is_out_of_memory, list_causes

# Errors of the operating system that stay: no file, no permission, not the right kind of file.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
# Classes of requests, httpx, aiohttp, urllib3 and botocore, which may not be installed.
_NETWORK = {
    "TimeoutError", "ConnectionError", "TransportError", "HTTPClientError", "ClientConnectionError",
}  # fmt: skip
_OFFLINE = "OfflineModeIsEnabled"  # a connection error to huggingface_hub
# Errors that transformers quotes as text.
_QUOTED = re.compile(r"CUDA error|\b(MemoryError|OutOfMemoryError|\w*(Connect|Timeout)\w*Error)\b")
# What the loader of shared libraries says of one whose libraries are of another build.
_OTHER_BUILD = re.compile(
    r"lib(torch|c10|cudart|cudnn|cublas)\w*\.so[.\d]*: cannot open shared object file"
    r"|undefined symbol: "
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Hundreds of names, with which transformers ends some messages.
_ALL_TYPES = re.compile(
    r", or one of the following `model_type` keys.*|\s*Model type should be one of .*", re.DOTALL
)
_FIRST_ERROR = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)", re.M)


class LoadError(JudgedError):
    """The task can't be loaded here.

    for_good: whether another run would fail in the same way, until the job is changed.
    out_of_memory: whether it does not fit in the memory that is free.
    """

    blame = "run"

    def __init__(
        self, message: str, *, for_good: bool = False, out_of_memory: bool = False
    ) -> None:
        super().__init__(message)
        self.for_good, self.out_of_memory = for_good, out_of_memory

    @classmethod
    def of(cls, error: BaseException) -> LoadError:
        """Wrap the error that loading raised."""
        if isinstance(error, LoadError):
            return error
        line = describe_load_error(error)
        if _OTHER_BUILD.search(line):
            line += (
                ". A library here is of another build: install torch, torchvision and torchaudio "
                "from one index"
            )
        return cls(
            f"loading failed: {line}",
            for_good=is_permanent(error),
            out_of_memory=lacks_memory(error),
        )


def is_permanent(error: BaseException) -> bool:
    """Return whether loading would fail again at any other time.

    It may succeed once memory is free, a store or the Hub answers, or on another GPU.
    """
    causes = list(list_causes(error))
    offline = any(type(cause).__name__ == _OFFLINE for cause in causes)
    return not any(_is_transient(cause, offline) for cause in causes)


def lacks_memory(error: BaseException) -> bool:
    """Return whether loading failed because memory ran out."""
    return any(
        is_out_of_memory(cause) or _quotes_memory_error(error_message(cause))
        for cause in list_causes(error)
    )


def _quotes_memory_error(message: str) -> bool:
    """Return whether transformers quotes an error about memory."""
    quotes = "Traceback (most recent call last)" in message
    return quotes and any(sign in message.lower() for sign in SIGNS)


def _is_transient(error: BaseException, offline: bool) -> bool:
    if isinstance(error, StoreError) or is_out_of_memory(error):
        return True
    message = error_message(error)
    if "CUDA error" in message:
        return True
    if _quotes_memory_error(message):
        return True
    quotes = "Traceback (most recent call last)" in message
    if quotes and _QUOTED.search(message) and _OFFLINE not in message:
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status >= 500 or status == 429
    if not offline and _NETWORK & {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, OSError) and bool(error.errno) and not isinstance(error, _LASTING)


def describe_load_error(error: BaseException) -> str:
    """Return its class and message in one line; the first error of quoted tracebacks."""
    message = _COLOURS.sub("", error_message(error))
    quoted = _FIRST_ERROR.search(message)
    if quoted is not None:
        return " ".join(quoted[1].split())
    message = _ALL_TYPES.sub(" that this transformers knows", message)
    paragraph = re.split(r"\n\s*\n", message.strip())[0]
    return f"{type(error).__name__}: {' '.join(paragraph.split())}"
