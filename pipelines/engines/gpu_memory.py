"""How much of a GPU's memory this process may still take."""

from __future__ import annotations

from typing import Any


def find_free_bytes(device: Any) -> int:
    """Return how many bytes of a GPU's memory this process may still take.

    That is what is free, in torch's own cache too, but no more than is left of the process's share:
    others that share the GPU may not have taken theirs yet.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    taken = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - taken
    # torch 2.6 does not tell.
    find_share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    return max(min(free, int(find_share(device) * total) - taken), 0)
