"""A model is loaded again if others hold the GPU's memory, for a little while."""

from __future__ import annotations

import pytest
import torch
from pipemill.actors import model_slot
from pipemill.actors.faults.attempt_files import AttemptFiles
from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.model_slot import ModelSlot
from pipemill.actors.storage.store import Store

from tests.support.crowded import MESSAGE, NVML
from tests.support.killers import LoadKillers


@pytest.mark.parametrize(
    ("error", "failures", "tries", "lacks_memory"),
    [
        (torch.OutOfMemoryError(MESSAGE), 2, 3, None),
        (torch.OutOfMemoryError(MESSAGE), 9, 4, True),
        (torch.AcceleratorError("CUDA error: out of memory"), 1, 2, None),
        (RuntimeError(NVML), 1, 2, None),
        (MemoryError(), 1, 1, True),
        (OSError("no file named model.safetensors"), 1, 1, False),
    ],
)
def test_it_waits_for_the_memory_of_a_gpu(
    tmp_path, monkeypatch, error, failures, tries, lacks_memory
):
    monkeypatch.setattr(model_slot, "_WAITS_S", (0.0,) * 3)
    calls = []

    def load():
        calls.append(1)
        if len(calls) <= failures:
            raise error
        return LoadKillers(str(tmp_path))()

    slot = ModelSlot(load, AttemptFiles(Store(str(tmp_path)), "run"), [])
    if lacks_memory is None:
        with slot.stages():
            pass
    else:
        with pytest.raises(LoadError, match="loading failed: ") as raised, slot.stages():
            pass
        assert raised.value.out_of_memory is lacks_memory
    assert len(calls) == tries
