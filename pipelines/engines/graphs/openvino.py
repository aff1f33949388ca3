"""OpenVINO: float32, bfloat16, and int8 with scales from the job's first rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .runtime import RunGraph, Traced

_GRAPH, _REDUCED = "model.xml", "reduced.xml"
_PRECISION = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoRuntime:
    """Runs models with OpenVINO on the CPU."""

    name = "openvino"
    modules: tuple[str, ...] = ("openvino", "nncf")
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "int8")
    width_step = 8  # it compiles kernels for each new shape

    def calibrates(self, dtype: str) -> bool:
        return dtype == "int8"

    def export(self, traced: Traced, folder: Path) -> None:
        import openvino
        import torch

        tensors = tuple(map(torch.from_numpy, traced.examples[0]))
        graph = openvino.convert_model(traced.module, example_input=tensors)
        for axes, port, array in zip(
            traced.free_axes, graph.inputs, traced.examples[0], strict=True
        ):
            lengths = [-1 if i in axes else n for i, n in enumerate(array.shape)]
            port.get_node().set_partial_shape(openvino.PartialShape(lengths))
        graph.validate_nodes_and_infer_types()
        openvino.save_model(graph, folder / _GRAPH, compress_to_fp16=False)

    def reduce(self, traced: Traced, folder: Path, dtype: str) -> None:
        if dtype != "int8":
            return
        import nncf
        import openvino

        graph = openvino.Core().read_model(folder / _GRAPH)
        names = [port.get_any_name() for port in graph.inputs]
        examples = [dict(zip(names, arrays, strict=True)) for arrays in traced.examples]
        reduced = nncf.quantize(
            graph,
            nncf.Dataset(examples),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(examples),
        )
        openvino.save_model(reduced, folder / _REDUCED, compress_to_fp16=False)
        del graph, reduced  # they hold the files
        for suffix in (".xml", ".bin"):
            (folder / _GRAPH).with_suffix(suffix).unlink()

    def load(self, folder: Path, dtype: str, threads: int) -> RunGraph:
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISION[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # of several actors all would take the same cores
        }
        graph = folder / (_REDUCED if dtype == "int8" else _GRAPH)
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        request = compiled.create_infer_request()
        outputs = range(len(compiled.outputs))

        def run(inputs: list[np.ndarray]) -> list[np.ndarray]:
            found = request.infer(inputs, share_inputs=True)
            return [found[i] for i in outputs]

        return run
