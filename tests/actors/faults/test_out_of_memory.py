"""What failed for want of memory leaves nothing behind that is in the way of what comes next."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import sys
from pathlib import Path
from pipemill.actors.faults.out_of_memory import release_memory

def mapped():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) // 1024

def leave_holes():
    blocks, pins = [], []
    for _ in range(30):
        blocks.append(bytearray(8 << 20))
        pins.append([bytes(2000) for _ in range(50)])
    del blocks
    return pins

bytearray(30 << 20)  # from then on glibc keeps what is smaller
if "room" in sys.argv:
    release_memory()
before = mapped()
pins = leave_holes()
print(mapped() - before)
"""


def left_mapped(*arguments):
    """MiB that freed blocks still take of the address space."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_after_a_failure_large_blocks_go_back_to_the_system():
    assert left_mapped() > 150
    assert left_mapped("room") < 20
