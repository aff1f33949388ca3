"""What a process may take of a GPU, with stand-ins for what torch tells of one."""

from __future__ import annotations

import pytest
import torch
from pipemill.pipelines.engines.gpu_memory import find_free_bytes


@pytest.mark.parametrize(
    ("free", "share", "allocated", "reserved", "wanted"),
    [
        (90, 1.0, 5, 5, 90),  # alone
        (90, 0.25, 5, 5, 20),  # one of four that start together: the others take theirs later
        (10, 0.25, 5, 5, 10),  # which others have taken
        (10, 0.25, 5, 12, 17),  # torch keeps 7 for the next one that asks
        (10, 0.25, 30, 30, 0),
    ],
)
def test_a_process_counts_on_its_share(monkeypatch, free, share, allocated, reserved, wanted):
    told = {
        "mem_get_info": (free, 100),
        "memory_allocated": allocated,
        "memory_reserved": reserved,
        "get_per_process_memory_fraction": share,
    }
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert find_free_bytes("cuda:0") == wanted
