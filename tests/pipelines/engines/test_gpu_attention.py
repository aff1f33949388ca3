"""Kernels for sequences of any length, with stand-ins that compute the same on a CPU."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from pipemill.pipelines.engines import gpu_attention, packing_probe
from pipemill.pipelines.engines.gpu_attention import (
    Sequences,
    find_kernels,
    flash_attention,
    memory_efficient,
    torch_varlen,
)
from pipemill.pipelines.loading.model import Model

from tests.support import encoders


def attend(query, key, value, starts_q, starts_k, scale=None, causal=False, sides=(-1, -1)):
    """Each sequence by itself, in one dense attention with a mask."""
    out = torch.empty_like(query)
    for n in range(len(starts_q) - 1):
        q, k = slice(starts_q[n], starts_q[n + 1]), slice(starts_k[n], starts_k[n + 1])
        parts = [t.transpose(0, 1)[None] for t in (query[q], key[k], value[k])]
        rows, columns = q.stop - q.start, k.stop - k.start
        distance = torch.arange(rows)[:, None] - torch.arange(columns)
        seen = torch.ones(rows, columns, dtype=torch.bool)
        if sides[0] >= 0:
            seen &= distance <= sides[0]
        if causal or sides[1] >= 0:
            seen &= distance >= -max(sides[1], 0)
        found = torch.nn.functional.scaled_dot_product_attention(
            *parts, attn_mask=seen, scale=scale, enable_gqa=True
        )
        out[q] = found[0].transpose(0, 1)
    return out


def of_torch_2_10(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False, return_aux=None):
    assert q.shape[1] == k.shape[1], "it has no grouped heads"
    return attend(q, k, v, cu_q, cu_k, None, is_causal)


def of_torch_2_11(
    q, k, v, cu_q, cu_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert q.shape[1] == k.shape[1], "it has no grouped heads"
    return attend(q, k, v, cu_q, cu_k, scale, window_size[1] == 0, window_size)


def of_torch_2_13(
    q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa == (q.shape[1] != k.shape[1])
    return attend(q, k, v, cu_q, cu_k, scale, window_size[1] == 0, window_size)


def of_flash_attn(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
    softmax_scale=None, causal=False, window_size=(-1, -1),
):  # fmt: skip
    return attend(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal, window_size)


def put_in(monkeypatch, name, **contents):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**contents))


def sequences(kv_heads=4, causal=False, window=None, scale=None) -> Sequences:
    torch.manual_seed(0)
    lengths = np.array([7, 1, 12, 5])
    starts = torch.from_numpy(np.append(0, lengths.cumsum()).astype(np.int32))
    shape = int(lengths.sum()), 8
    return Sequences(
        query=torch.randn(shape[0], 4, 8),
        key=torch.randn(shape[0], kv_heads, 8),
        value=torch.randn(shape[0], kv_heads, 8),
        query_starts=starts,
        key_starts=starts,
        longest_query=12,
        longest_key=12,
        scale=scale,
        causal=causal,
        window=window,
    )


@pytest.mark.parametrize("varlen_attn", [of_torch_2_10, of_torch_2_11, of_torch_2_13])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_every_version_of_torch_is_asked_for_the_same(
    monkeypatch, varlen_attn, causal, window, kv_heads
):
    put_in(monkeypatch, "torch.nn.attention.varlen", varlen_attn=varlen_attn)
    scale = 0.3
    if varlen_attn is of_torch_2_10:
        with pytest.raises(NotImplementedError, match="has no scale"):
            torch_varlen(sequences(kv_heads, causal, window, scale))
        scale = 8**-0.5
    asked = sequences(kv_heads, causal, window, scale)
    if window is not None and varlen_attn is of_torch_2_10:
        with pytest.raises(NotImplementedError, match="has no window"):
            torch_varlen(asked)
        return
    side = -1 if window is None else window - 1
    starts = asked.query_starts
    expected = attend(
        asked.query,
        asked.key,
        asked.value,
        starts,
        starts,
        scale,
        causal,
        (side, 0 if causal else side),
    )
    assert torch.allclose(torch_varlen(asked), expected, atol=1e-6)


def test_flash_attn_is_asked_for_the_same(monkeypatch):
    put_in(monkeypatch, "flash_attn", flash_attn_varlen_func=of_flash_attn)
    gpu_attention._import_flash_attention.cache_clear()
    asked = sequences(kv_heads=2, window=4)
    starts = asked.query_starts
    expected = attend(asked.query, asked.key, asked.value, starts, starts, sides=(3, 3))
    try:
        assert torch.allclose(flash_attention(asked), expected, atol=1e-6)
    finally:
        gpu_attention._import_flash_attention.cache_clear()


def on_cuda(dtype):
    return types.SimpleNamespace(device=torch.device("cuda:0"), dtype=dtype)


def test_only_kernels_that_are_here_are_tried(monkeypatch):
    gpu_attention._import_flash_attention.cache_clear()
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as if it could not be imported
    monkeypatch.setitem(sys.modules, "kernels", None)
    assert find_kernels(on_cuda(torch.bfloat16)) == [torch_varlen, memory_efficient]
    assert find_kernels(on_cuda(torch.float32)) == [memory_efficient]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert find_kernels(on_cuda(torch.bfloat16)) == [memory_efficient]
    assert find_kernels(types.SimpleNamespace(device=torch.device("cpu"))) == []


def own_kernel(asked: Sequences):
    sides = asked.sides()
    starts = asked.query_starts, asked.key_starts
    return attend(asked.query, asked.key, asked.value, *starts, asked.scale, asked.causal, sides)


def wrong_kernel(asked: Sequences):
    return own_kernel(asked) * 1.01


def broken_kernel(asked: Sequences):
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    ("task", "reads"), [("text-classification", "first"), ("fill-mask", "masks"),
                        ("feature-extraction", "all")]
)  # fmt: skip
def test_a_model_takes_the_first_kernel_that_is_right(models, monkeypatch, task, reads):
    kernels = [broken_kernel, wrong_kernel, own_kernel]
    monkeypatch.setattr(packing_probe, "find_kernels", lambda model: kernels)
    encoder = encoders.encoder(Model(path=models[task]).load(task), reads=reads)
    assert encoder.is_packed
    assert encoder.engine.kernel is own_kernel
    monkeypatch.setattr(packing_probe, "find_kernels", lambda model: [broken_kernel, wrong_kernel])
    encoder = encoders.encoder(Model(path=models[task]).load(task), reads=reads)
    assert encoder.is_packed
    assert encoder.engine.kernel is None


def test_the_starts_of_sequences_are_made_once_for_all_layers(models, monkeypatch):
    made = []
    from pipemill.pipelines.engines import packed_attention

    real = packed_attention.to_device
    monkeypatch.setattr(packed_attention, "to_device", lambda *args: made.append(1) or real(*args))
    monkeypatch.setattr(packing_probe, "find_kernels", lambda model: [own_kernel])
    encoder = encoders.encoder(Model(path=models["fill-mask"]).load("fill-mask"), reads="all")
    assert encoder.is_packed
    made.clear()
    lengths = np.array([3, 9])
    encoder.run({"input_ids": np.arange(5, 17)}, lengths)
    assert len(made) == 1
