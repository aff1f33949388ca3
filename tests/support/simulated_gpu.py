"""Give torch a GPU on a machine that has none: `pytest -p tests.support.simulated_gpu tests/gpu`.

Its tensors say that they are on `cuda:0`, and are computed on the CPU. As on a GPU, an operation
takes no tensor of the CPU beside them, apart from single numbers and indices, and NumPy takes none
of them. Nothing is shown of speed, memory, rounding and the order in which things happen.

Needs Linux and a torch without CUDA. It is for a whole process: nothing undoes it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

aten = torch.ops.aten
GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
MEMORY = 8 * 2**30
# From one to the other.
_COPIES = {aten.copy_.default, aten._to_copy.default}
# Their second argument, the indices, may be on the CPU.
_INDEXED = {
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}
# They make a tensor from none. torch has no such functions for CUDA where it was built without it.
_MAKERS = ("arange", "arange.start", "arange.start_step", "empty.memory_format", "empty_strided",
           "full", "linspace", "ones", "randperm", "scalar_tensor", "zeros")  # fmt: skip
# Kept, because torch forgets functions whose library is gone.
_libraries: list[torch.library.Library] = []


class OnGpu(torch.Tensor):
    """A tensor that says that it is on the GPU; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=GPU,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        return OnGpu(self.inner.clone())

    def __repr__(self):
        return f"OnGpu({self.inner!r})"

    def __format__(self, form):
        return format(self.inner, form)

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.inner.numpy(force=True)


def _compute(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation of torch computes; it is on the GPU, unless asked for elsewhere."""
    if function in _INSTEAD:
        return _INSTEAD[function](*args, **kwargs)
    tensors: list[torch.Tensor] = []
    plain, named = _unwrap(args, tensors), _unwrap(kwargs, tensors)
    beside: list[torch.Tensor] = []
    _unwrap((args[:1], args[2:]) if function in _INDEXED else (args, kwargs), beside)
    strays = [tuple(t.shape) for t in beside if t.dim() and not isinstance(t, OnGpu)]
    if strays and function not in _COPIES:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({function}: of the CPU are those of the shapes {strays})"
        )
    device = torch.device(named["device"] or GPU) if "device" in named else GPU
    if device.type == "cuda" and "device" in named:
        named["device"] = CPU
    named.pop("pin_memory", None)
    result = function(*plain, **named)
    if function is aten.copy_.default:
        return args[0]
    return _wrap(result, tensors) if device.type == "cuda" else result


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, OnGpu)


def _unwrap(value: Any, found: list[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        found.append(value)
        return value.inner if isinstance(value, OnGpu) else value
    if type(value) in (list, tuple):
        return type(value)(_unwrap(one, found) for one in value)
    if type(value) is dict:
        return {name: _unwrap(one, found) for name, one in value.items()}
    return value


def _wrap(value: Any, given: list[torch.Tensor]) -> Any:
    if _is_plain(value):
        for one in given:
            if isinstance(one, OnGpu) and one.inner is value:  # it was written into
                return one
        # A view of what was made elsewhere is no tensor of `inference_mode`.
        with torch.inference_mode(False):
            return OnGpu(value)
    if type(value) in (list, tuple):
        return type(value)(_wrap(one, given) for one in value)
    return value


def _attend(query, key, value, bias, query_starts, key_starts, longest_query, longest_key, dropout,
            mask, *others, scale=None, **more):  # fmt: skip
    """Compute memory-efficient attention, which only CUDA has, sequence by sequence."""
    for one in (query, key, value, query_starts, key_starts):
        assert isinstance(one, OnGpu), "a tensor of the CPU"
    assert bias is None
    out = torch.empty_like(query.inner)
    ends = query_starts.inner.tolist(), key_starts.inner.tolist()
    sides = [list(zip(side, side[1:], strict=False)) for side in ends]
    for (first, last), (start, end) in zip(*sides, strict=True):
        out[0, first:last] = torch.nn.functional.scaled_dot_product_attention(
            query.inner[:, first:last].transpose(1, 2),
            key.inner[:, start:end].transpose(1, 2),
            value.inner[:, start:end].transpose(1, 2),
            is_causal=mask == 1,
            scale=scale,
        )[0].transpose(0, 1)
    return OnGpu(out), None, None, None, 0, 0


_INSTEAD: dict[Any, Callable[..., Any]] = {
    aten._efficient_attention_forward.default: _attend,
    aten._fused_sdp_choice.default: lambda *args, **kwargs: 0,  # the formula, not a kernel
    aten._has_compatible_shallow_copy_type.default: lambda *args: False,
}


class _Event:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...


class _Stream:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *raised: object) -> None: ...


class _Generator(torch.Generator):
    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls)


def _find_overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _register_operations() -> None:
    """Register what CUDA is to compute, also where torch does not ask a tensor's class."""

    def make(function: Any) -> Callable[..., Any]:
        def made(*args: Any, device: Any = None, pin_memory: Any = None, **kwargs: Any) -> OnGpu:
            return OnGpu(function(*args, device=CPU, **kwargs))

        return made

    def compute(function: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: _compute(function, args, kwargs)

    known, others = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    for name in _MAKERS:
        known.impl(name, make(_find_overload(name)), "CUDA")
    for name in ("copy_", "_to_copy", "zero_", "fill_.Scalar"):
        known.impl(name, compute(_find_overload(name)), "CUDA")
    others.fallback(lambda function, *args, **kwargs: _compute(function, args, kwargs), "CUDA")
    _libraries.extend((known, others))


def _set_device_guard() -> None:
    """Let torch switch to a device of CUDA, which does nothing.

    torch has a guard for CUDA that does nothing, and takes it where CUDA finds no device. So it
    gets a CUDA that finds none: an object of which each virtual method returns 0.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    method = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    methods = (ctypes.c_void_p * 64)(*[ctypes.cast(method, ctypes.c_void_p).value] * 64)
    nothing = ctypes.c_void_p(ctypes.addressof(methods))
    guards[1] = ctypes.addressof(nothing)
    torch._C._ensureCUDADeviceGuardSet()
    assert guards[1] != ctypes.addressof(nothing), "torch takes no other guard for CUDA"


def _describe_gpu() -> None:
    """Let torch find the GPU, and its memory empty."""
    constants = {
        "_exchange_device": 0, "_lazy_init": None, "_maybe_exchange_device": 0,
        "current_device": 0, "device_count": 1, "empty_cache": None,
        "get_device_capability": (9, 0), "get_device_name": "simulated GPU",
        "get_per_process_memory_fraction": 1.0, "get_rng_state": torch.zeros(16).byte(),
        "init": None, "is_available": True, "is_bf16_supported": True, "is_initialized": True,
        "manual_seed": None, "manual_seed_all": None, "max_memory_allocated": 0,
        "mem_get_info": (MEMORY, MEMORY), "memory_allocated": 0, "memory_reserved": 0,
        "reset_peak_memory_stats": None, "set_per_process_memory_fraction": None,
        "set_rng_state": None, "synchronize": None,
        "get_device_properties": SimpleNamespace(
            total_memory=MEMORY, name="simulated GPU", major=9, minor=0, multi_processor_count=1
        ),
    }  # fmt: skip
    for name, value in constants.items():
        setattr(torch.cuda, name, lambda *args, _value=value, **kwargs: _value)
    torch.cuda.Event, torch.cuda.Stream, torch.cuda.stream = _Event, _Stream, _Stream


def _leave_memory_unpinned() -> None:
    usual = torch.empty

    def empty(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        return usual(*args, **kwargs)

    torch.empty, torch.Tensor.pin_memory = empty, lambda self: self


def pytest_configure() -> None:
    """Make the GPU, before a test asks for one."""
    _set_device_guard()
    _register_operations()
    _describe_gpu()
    _leave_memory_unpinned()
    torch.Generator = _Generator
    # A parameter takes no data of another class: it is replaced.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
