"""What is to blame for an exception: messages of torch 2.6 to 2.13 and its libraries."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipemill.actors.faults.blame import find_blame, is_row_error
from pipemill.actors.faults.load_errors import LoadError

from tests.support.crowded import NVML
from tests.support.killers import ASSERT

MORE = "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
CALL = "when calling `cublasGemmEx( handle, opa, opb, m, n, k, &falpha, a, CUDA_R_16BF, lda)`"
BLAME = {
    # A kernel that fails takes the context with it.
    ASSERT: "process",
    f"CUDA error: an illegal memory access was encountered{MORE}": "process",
    f"CUDA error: misaligned address{MORE}": "process",
    f"CUDA error: unspecified launch failure{MORE}": "process",
    f"CUDA error: uncorrectable ECC error encountered{MORE}": "process",
    f"CUDA error: the launch timed out and was terminated{MORE}": "process",
    f"CUDA error: unknown error{MORE}": "process",
    f"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED {CALL}": "process",
    f"CUDA error: CUBLAS_STATUS_INTERNAL_ERROR {CALL}": "process",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`": "process",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": "process",
    "CUDA driver error: an illegal memory access was encountered": "process",
    "Triton Error [CUDA]: an illegal memory access was encountered": "process",
    "HIP error: unspecified launch failure": "process",
    "cuFFT error: CUFFT_EXEC_FAILED": "process",
    # Memory: the next, smaller call works.
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a": "memory",
    f"CUDA error: out of memory{MORE}": "memory",
    "CUDA driver error: out of memory": "memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "memory",
    NVML: "memory",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory": "memory",
    # The device refused a call; it works on.
    f"CUDA error: invalid configuration argument{MORE}": "row",
    f"CUDA error: too many resources requested for launch{MORE}": "row",
    f"CUDA error: CUBLAS_STATUS_INVALID_VALUE {CALL}": "row",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a": "row",
    # Every process and row would meet them.
    f"CUDA error: no kernel image is available for execution on the device{MORE}": "run",
    "CUDA driver error: invalid device function": "run",
    # Rows.
    "The size of tensor a (513) must match the size of tensor b (512)": "row",
    "Expected all tensors to be on the same device, but found cuda:0 and cpu": "row",
}


@pytest.mark.parametrize("message", BLAME)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError, torch.OutOfMemoryError])
def test_torch_errors(kind, message):
    assert find_blame(kind(message)) == BLAME[message]


def test_other_classes():
    missing = ImportError("no library")
    missing.no_rows_fault = True  # type: ignore[attr-defined]
    panic = type("PanicException", (BaseException,), {})
    for error, blame in [
        (MemoryError(), "memory"),
        (KeyboardInterrupt(), "run"),
        (SystemExit(1), "run"),
        (missing, "run"),
        (panic("overflow"), "row"),
        (ValueError(f"no label {ASSERT!r}"), "row"),  # it quotes the row
        (LoadError(f"loading failed: {ASSERT}"), "run"),  # another process said that
    ]:
        assert find_blame(error) == blame, error


def test_an_error_that_a_pipeline_caught_and_raised_as_another_one_is_the_devices():
    error = ValueError("this row can't be read")
    error.__cause__ = torch.AcceleratorError(ASSERT)
    assert find_blame(error) == "process"


@given(st.text(), st.sampled_from([ValueError, KeyError, RuntimeError]))
def test_what_names_no_device_is_a_rows_fault(message, kind):
    assert is_row_error(kind(f"row {message}")) or "_" in message or "error" in message.lower()
