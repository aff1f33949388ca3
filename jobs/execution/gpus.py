"""The GPUs of this machine, found without torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def find_gpus() -> list[tuple[str, int]]:
    """Return name and memory of each GPU of this machine that torch can use here.

    Asks NVIDIA's driver: the driver of a run does not import torch, which takes seconds.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else [part.strip() for part in visible.split(",")]
    if chosen in ([""], ["-1"]) or not _torch_has_cuda():
        return []
    every = _gpus_of_driver()
    if chosen is None or not every:
        return every
    # A UUID or a number; what follows one that does not exist is not seen by CUDA either.
    return [every[int(one) % len(every)] if one.isdigit() else every[0] for one in chosen]


def _gpus_of_driver() -> list[tuple[str, int]]:
    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        library: Any = ctypes.CDLL(name)
    except OSError:
        return []
    found: list[tuple[str, int]] = []
    if library.nvmlInit_v2() != 0:
        return found
    try:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for number in range(count.value):
            device, memory = ctypes.c_void_p(), Memory()
            called = ctypes.create_string_buffer(96)
            library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device))
            library.nvmlDeviceGetName(device, called, len(called))
            library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
            found.append((called.value.decode(errors="replace") or "GPU", int(memory.total)))
    finally:
        library.nvmlShutdown()
    return found


def _torch_has_cuda() -> bool:
    """Return whether torch was built for CUDA, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    with suppress(OSError):
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
        return re.search(r"^cuda\b[^=]*= *['\"]", text, re.MULTILINE) is not None
    return False


def why_no_gpu() -> str:
    """Return why a GPU that is here is not used."""
    if not _gpus_of_driver():
        return ""
    if not _torch_has_cuda():
        return f" ({socket.gethostname()} has one, but its torch is built without CUDA)"
    return f" (CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', '')!r})"
