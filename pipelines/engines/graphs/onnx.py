"""ONNX Runtime: float32, and int8 with scales that each call finds by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .runtime import RunGraph, Traced

_GRAPH, _REDUCED = "model.onnx", "reduced.onnx"


class OnnxRuntime:
    """Runs models with ONNX Runtime on the CPU."""

    name = "onnx"
    modules: tuple[str, ...] = ("onnxruntime", "onnx", "onnxscript")
    dtypes: tuple[str, ...] = ("float32", "int8")
    width_step = 1

    def calibrates(self, dtype: str) -> bool:
        return False

    def export(self, traced: Traced, folder: Path) -> None:
        import torch

        free = [dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None for axes in traced.free_axes]
        torch.onnx.export(
            traced.module,
            tuple(map(torch.from_numpy, traced.examples[0])),
            folder / _GRAPH,
            input_names=list(traced.names),
            output_names=list(traced.outputs),
            dynamic_shapes=(tuple(free),),  # of the one argument that stands for all inputs
            dynamo=True,
            verbose=False,
        )

    def reduce(self, traced: Traced, folder: Path, dtype: str) -> None:
        if dtype != "int8":
            return
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            folder / _GRAPH,
            folder / _REDUCED,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
        for file in folder.glob(f"{_GRAPH}*"):
            file.unlink()

    def load(self, folder: Path, dtype: str, threads: int) -> RunGraph:
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = folder / (_REDUCED if dtype == "int8" else _GRAPH)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(inputs: list[np.ndarray]) -> list[np.ndarray]:
            return session.run(None, dict(zip(names, inputs, strict=True)))

        return run
