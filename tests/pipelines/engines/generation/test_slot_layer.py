import mmap

import pytest
import torch
from pipemill.pipelines.engines.generation import slot_layer

MIB = 2**20


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has them")
@pytest.mark.parametrize("mib", [1, 3, 9])
def test_whole_large_pages_inside_the_tensor_are_advised(mib, monkeypatch):
    advised = []
    monkeypatch.setattr(slot_layer, "_find_madvise", lambda: lambda *given: advised.append(given))
    like = torch.ones(1, dtype=torch.float64)
    made = slot_layer.make_zeros(like, (mib, MIB // 8))
    assert torch.equal(made, torch.zeros(mib, MIB // 8, dtype=torch.float64))
    for first, length, advice in advised:
        assert (first.value % (2 * MIB), length.value % (2 * MIB)) == (0, 0)
        assert made.data_ptr() <= first.value
        assert first.value + length.value <= made.data_ptr() + made.nbytes
        assert advice == mmap.MADV_HUGEPAGE
    # At most what does not fill a page is left out, at both ends.
    assert sum(length.value for _, length, _ in advised) > made.nbytes - 4 * MIB


def test_the_system_takes_the_advice():
    made = slot_layer.make_zeros(torch.ones(1), (5, MIB))
    assert (made == 0).all()
