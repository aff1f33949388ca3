"""Make spectra of recordings on the device of the model, for hosts whose CPUs are slower."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np

from .side_stream import SideStream, is_faster, rounds_on_gpu

_MOST_OFF = 1e-3  # of spectra that reach from -1 to 1: what 16 bits round, at most
_SECONDS = 10  # of the recording by which a device is tried


class DeviceExtractor:
    """Stands in for a feature extractor that knows devices, and has its spectra made on one."""

    def __init__(self, on_cpu: Any, stream: SideStream) -> None:
        self.on_cpu, self.stream = on_cpu, stream

    def __call__(self, *recordings: Any, **keywords: Any) -> Any:
        device = str(self.stream.device)
        found = self.stream.compute(lambda: self.on_cpu(*recordings, device=device, **keywords))
        return self.on_cpu(*recordings, **keywords) if found is None else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.on_cpu, name)


def choose_extractor(pipeline: Any) -> Any:
    """Return the pipeline, or one whose spectra are made faster, and as well, on its GPU."""
    if not rounds_on_gpu(pipeline):
        return pipeline
    found = extract_on_device(pipeline, pipeline.device)
    return found if found is not None and _is_faster(found, pipeline) else pipeline


def extract_on_device(pipeline: Any, device: Any) -> Any | None:
    """Return a pipeline whose spectra are made on a device, if they are nearly the same.

    Args:
        pipeline: as it is; only the result's feature extractor differs.
        device: the model's.
    """
    extractor = getattr(pipeline, "feature_extractor", None)
    if extractor is None or "device" not in inspect.signature(extractor.__call__).parameters:
        return None
    like = copy.copy(pipeline)
    try:
        like.feature_extractor = DeviceExtractor(extractor, SideStream(device))
        for recording in (_make_noise(extractor), _make_noise(extractor) * 1e-3):
            usual, found = _extract(pipeline, recording), _extract(like, recording)
            if usual.shape != found.shape or np.abs(usual - found).max() > _MOST_OFF:
                return None
    except Exception:  # it wants more than a recording, or gives other numbers than spectra
        return None
    return like


def _is_faster(on_device: Any, on_cpu: Any) -> bool:
    """Tell whether the spectrum of a recording is made faster on the device."""
    recording = _make_noise(on_cpu.feature_extractor)
    return is_faster(lambda: _extract(on_device, recording), lambda: _extract(on_cpu, recording))


def _make_noise(extractor: Any) -> np.ndarray:
    count = _SECONDS * int(extractor.sampling_rate)
    return np.random.default_rng(0).normal(scale=0.1, size=count).astype(np.float32)


def _extract(pipeline: Any, recording: np.ndarray) -> np.ndarray:
    extractor = pipeline.feature_extractor
    found = extractor(recording, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return np.asarray(found["input_features"], dtype=np.float32)
