"""What travels with a row is as large as it is, and comes back as it was."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from pipemill.pipelines.adapter.pickled_chunks import pickle_chunk


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float32, torch.float16, torch.bfloat16]
)
def test_a_part_of_a_tensor_does_not_bring_the_rest_along(dtype):
    whole = torch.arange(100_000).reshape(100, 1000).to(dtype)
    chunk = {"ids": whole[3:4], "more": [whole.T[5], (whole[0, 7],)], "text": "a"}
    data = pickle_chunk(chunk)
    assert len(data) < 30_000
    back = pickle.loads(data)
    assert torch.equal(back["ids"], whole[3:4])
    assert back["ids"].dtype == dtype
    assert torch.equal(back["more"][0], whole.T[5])
    assert torch.equal(back["more"][1][0], whole[0, 7])
    assert back["text"] == "a"
    back["ids"].zero_()  # pipelines write into what they are given


def test_equal_chunks_are_equal_bytes():
    one, other = (pickle_chunk({"ids": torch.arange(10)[2:5]}) for _ in range(2))
    assert one == other


def test_other_values_are_pickled_as_ever():
    value = {"array": np.arange(3), "grad": torch.nn.Parameter(torch.ones(2))}
    back = pickle.loads(pickle_chunk(value))
    assert np.array_equal(back["array"], value["array"])
    assert isinstance(back["grad"], torch.nn.Parameter)


def test_what_can_not_be_pickled_is_explained():
    with pytest.raises(TypeError, match=r"a step .* can't be passed on: return .*'generator'"):
        pickle_chunk({"scores": (number for number in range(3))})
