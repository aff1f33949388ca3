"""Find the GPUs of this machine without torch, and choose how many actors share one."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config.job import ActorsSection

_GIB = 2**30
# The most bytes of a model's weights, and how many replicas keep one GPU busy: tokenizing and
# launching kernels hold the interpreter's lock, so a small model needs several processes.
# Measured with 12 layers of width 384 on an H200 with 16 cores: 1 replica 20,500 rows/s, 8 replicas
# 95,700 (docs/gpu.md).
_REPLICAS = ((200 * 2**20, 8), (600 * 2**20, 4), (2 * _GIB, 2))
# Bytes that a replica holds besides its weights: CUDA's context, and a micro-batch's states.
_ROOM = 3 * _GIB
# Of a GPU of which no more is known.
LEAST_MEMORY = 15 * _GIB


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine offers to actors.

    Attributes:
        cpus: its CPUs.
        gpus: its GPUs.
        gpu_memory: bytes of memory of one GPU.
        gpu_name: the GPUs' name.
    """

    cpus: float
    gpus: float = 0
    gpu_memory: int = LEAST_MEMORY
    gpu_name: str = "GPU"


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


def describe_machine() -> Machine:
    """Describe this machine."""
    gpus = find_gpus()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not gpus:
        return Machine(cpus=cpus or 1)
    name, memory = gpus[0]
    return Machine(cpus=cpus or 1, gpus=len(gpus), gpu_memory=memory, gpu_name=name)


@dataclass(frozen=True, kw_only=True)
class GpuShare:
    """What each actor holds if `per_gpu` of them share a GPU."""

    per_gpu: int
    num_gpus: float
    num_cpus: float


def recommend_gpu_share(
    actors: ActorsSection, weights: int | None, *, host: float, device: float
) -> GpuShare | None:
    """Recommend how many actors share a GPU of this machine, so that rows never keep it waiting.

    Args:
        actors: the job's settings.
        weights: bytes of the model's weights; None if unknown.
        host: seconds in which an actor prepares some rows and shapes their answers.
        device: seconds in which the GPU computes them.

    Returns:
        The share; None without a GPU, or if the job says how much of one an actor holds.
    """
    machine = describe_machine()
    if not machine.gpus or not isinstance(actors.num_gpus, str):
        return None
    busy = math.ceil(host / max(device, 1e-9))
    return choose_gpu_share([machine], actors, weights, busy)


def choose_gpu_share(
    machines: list[Machine], actors: ActorsSection, weights: int | None, busy: int = 1
) -> GpuShare:
    """Choose how many actors share each GPU.

    Args:
        machines: machines that all have GPUs.
        actors: the job's settings.
        weights: bytes of the model's weights; None if unknown.
        busy: the actors that must prepare rows at the same time to keep a GPU busy.
    """
    if actors.per_gpu != "auto":
        per_gpu = int(actors.per_gpu)
    else:
        per_gpu = min(
            _count_replicas(machine, weights, actors.num_cpus, busy) for machine in machines
        )
        if actors.max != "auto":
            gpus = sum(math.floor(machine.gpus) for machine in machines)
            per_gpu = min(per_gpu, max(math.ceil(actors.max / gpus), 1))
    cpus = min(machine.cpus / (machine.gpus * per_gpu) for machine in machines)
    return GpuShare(
        per_gpu=per_gpu,
        num_gpus=1.0 if per_gpu == 1 else round_down(1 / per_gpu, 4),
        num_cpus=min(float(actors.num_cpus), max(round_down(cpus, 2), 0.01)),
    )


def _count_replicas(machine: Machine, weights: int | None, num_cpus: float, busy: int) -> int:
    if weights is None:
        return 1
    wanted = max(busy, next((count for most, count in _REPLICAS if weights <= most), 1))
    by_memory = machine.gpu_memory // (weights + _ROOM)
    by_cpus = math.floor(machine.cpus / machine.gpus / num_cpus)
    return max(min(wanted, by_memory, by_cpus), 1)


def round_down(number: float, digits: int) -> float:
    """Return the next lower number of so many digits after the point."""
    return math.floor(number * 10**digits) / 10**digits
