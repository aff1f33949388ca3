"""Find the package that brings a library, and the extra of pipemill that brings the package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable

# The extras of pyproject.toml that tasks, models and inputs need, by the modules that they bring.
EXTRAS: dict[str, tuple[str, ...]] = {
    "media": ("PIL", "av"),
    "peft": ("peft",),
    "tokenizers": ("google.protobuf", "sacremoses", "sentencepiece", "tiktoken"),
    "japanese": ("fugashi", "ipadic", "sudachipy", "unidic_lite"),
    "vision": ("num2words", "pytesseract", "scipy", "timm", "torchvision"),
    "delta": ("deltalake",),
    "iceberg": ("pyiceberg",),
    "lance": ("lance",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("nncf", "openvino"),
    "vllm": ("vllm",),
    "speech": ("g2p_en", "phonemizer", "torchaudio"),
}
# Where the two have different names.
_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "flute": "flute-kernel",
    "g2p_en": "g2p-en",
    "google.protobuf": "protobuf",
    "lance": "pylance",
    "mistral_common": "mistral-common",
    "optimum.quanto": "optimum-quanto",
    "pretty_midi": "pretty-midi",
    "quark": "amd-quark",
    "unidic_lite": "unidic-lite",
}


def find_package(module: str) -> str:
    """Return the name under which pip knows a module."""
    return _PACKAGES.get(module, module.partition(".")[0])


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported, without importing it.

    A broken module counts as installed: only the worker, which imports it, finds out.
    """
    name = module if module in _PACKAGES else module.partition(".")[0]
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def advise_install(modules: Iterable[str]) -> str:
    """Return the pip command that brings the modules: by extras where pipemill has them."""
    wanted = sorted(set(modules))
    extras = sorted({extra for module in wanted if (extra := _find_extra(module))})
    rest = [find_package(module) for module in wanted if not _find_extra(module)]
    parts = ([f"'pipemill[{','.join(extras)}]'"] if extras else []) + rest
    return f"pip install {' '.join(parts)}"


def _find_extra(module: str) -> str | None:
    name = module if module in _PACKAGES else module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if name in modules), None)
