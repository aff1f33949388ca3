"""Which chunks share a forward pass, where a first try decides it."""

from __future__ import annotations

import pytest
from pipemill.pipelines.adapter.pipeline_forward import PipelineForward


def test_a_first_try_without_memory_decides_nothing(monkeypatch):
    """Of fewer chunks the answers may be the same: they are tried when they fit."""
    forward = PipelineForward.__new__(PipelineForward)
    forward.alone, forward.by_token, forward.generation, forward.scheduled = {}, None, None, None

    def together(chunks):
        if len(chunks) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [f"answer to {chunk}" for chunk in chunks]

    monkeypatch.setattr(forward, "_together", together)
    monkeypatch.setattr(forward, "run_singly", lambda chunks: [f"answer to {c}" for c in chunks])
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(["a", "b", "c"])
    assert forward(["a", "b"]) == ["answer to a", "answer to b"]
    assert forward.alone == {False: False}
