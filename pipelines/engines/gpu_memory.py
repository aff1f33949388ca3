"""How much of a GPU's memory this process may take."""

from __future__ import annotations

from typing import Any

# What CUDA itself holds for a process, which torch does not count.
_CONTEXT_BYTES = 600 * 2**20


def find_free_bytes(device: Any) -> int:
    """Return how many bytes of a GPU's memory this process may still take.

    That is what is free, in torch's own cache too, but no more than is left of the process's share:
    others that share the GPU may not have taken theirs yet.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    taken = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - taken
    share = torch.cuda.get_per_process_memory_fraction(device)
    return max(min(free, int(share * total) - taken), 0)


def limit_to_share(share: float) -> None:
    """Keep this process to its share of the GPU's memory: others hold the rest."""
    import torch

    if share < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        mine = share - _CONTEXT_BYTES / total
        torch.cuda.set_per_process_memory_fraction(max(mine, share / 2))
