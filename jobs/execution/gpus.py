"""Find the GPUs of this machine without torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import socket
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any


def find_gpus() -> list[tuple[str, int]]:
    """Return the name and memory (bytes) of each GPU of this machine that torch can use.

    They come from NVIDIA's driver, because importing torch takes seconds.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = None if visible is None else [part.strip() for part in visible.split(",")]
    if ids in ([""], ["-1"]) or not _has_torch_cuda():
        return []
    gpus = _ask_driver()
    if ids is None or not gpus:
        return gpus
    # Each is a number or a UUID. CUDA ignores a number that does not exist, and all after it.
    exist = takewhile(lambda one: not one.isdigit() or int(one) < len(gpus), ids)
    return [gpus[int(one)] if one.isdigit() else gpus[0] for one in exist]


def _ask_driver() -> list[tuple[str, int]]:
    """Return the name and memory (bytes) of each GPU from NVIDIA's driver; [] without one."""

    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        library: Any = ctypes.CDLL(name)
    except OSError:
        return []
    gpus: list[tuple[str, int]] = []
    if library.nvmlInit_v2() != 0:
        return gpus
    try:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for number in range(count.value):
            device, memory = ctypes.c_void_p(), Memory()
            label = ctypes.create_string_buffer(96)
            library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device))
            library.nvmlDeviceGetName(device, label, len(label))
            library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
            gpus.append((label.value.decode(errors="replace") or "GPU", int(memory.total)))
    finally:
        library.nvmlShutdown()
    return gpus


def _has_torch_cuda() -> bool:
    """Return whether torch was built for CUDA, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    with suppress(OSError):
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
        return re.search(r"^cuda\b[^=]*= *['\"]", text, re.MULTILINE) is not None
    return False


def explain_no_gpu() -> str:
    """Return, for messages, why a GPU of this machine is not used; "" without a GPU."""
    if not _ask_driver():
        return ""
    if not _has_torch_cuda():
        return f" ({socket.gethostname()} has one, but its torch is built without CUDA)"
    return f" (CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', '')!r})"
