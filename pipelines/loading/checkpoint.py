"""Read what a model's folder holds from names and headers, without its weights or torch."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# transformers looks for these in this order.
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# What other libraries save, by the end of a file's name.
_OTHER_WEIGHTS = {
    ".gguf": "GGUF (llama.cpp)",
    ".onnx": "ONNX",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".tflite": "TensorFlow Lite",
    ".mlmodel": "Core ML",
    ".ckpt": "a training checkpoint",
    ".pt": "a training checkpoint",
    ".pth": "a training checkpoint",
}
# What folders of other libraries hold, and libraries whose folders look alike.
_OTHER_MARKS = {
    "model_index.json": "a diffusers pipeline",
    "open_clip_config.json": "a model of OpenCLIP",
    "params.json": "a model in the form that Llama or Mistral publish",
    "config.cfg": "a model of spaCy",
    "saved_model.pb": "a model of TensorFlow",
}
_DTYPE = re.compile(r"(b?float|u?int|complex)\d+\w*|half|float|double")
_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024  # bytes
_LONGEST_HEADER = 100 * 2**20  # bytes; the library refuses longer ones, too
_SIZE_FIELD = 8  # bytes in front of a header: its length

# A weight's type, as safetensors names it, and its shape.
Tensors = dict[str, tuple[str, tuple[int, ...]]]


class CheckpointError(ValueError):
    """The files in a model's folder can't be loaded. The message names the file and what to do."""


def check_files(folder: Path, files: Iterable[Path]) -> None:
    """Raise CheckpointError for a Git LFS pointer in place of a file."""
    for file in files:
        if file.is_file() and file.stat().st_size <= _LONGEST_POINTER and is_pointer(file):
            raise CheckpointError(
                f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
                f"{folder}, or download the model again"
            )


def is_pointer(file: str | Path) -> bool:
    """Tell whether a file is what a clone has in its place until `git lfs pull`."""
    with open(file, "rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def find_weights(folder: Path, config: Mapping[str, Any], pickled: bool) -> list[Path]:
    """Return the files that transformers would read a model's weights from.

    Args:
        folder: where config.json lies.
        config: what config.json holds.
        pickled: whether pickled weights may be read where there are no safetensors.

    Raises:
        CheckpointError: no weights, a shard that is missing, or an index that can't be read.
    """
    named = config.get("transformers_weights")
    names = [*([str(named)] if named else []), *_SAFE, *(_PICKLED if pickled else ())]
    for name in names:
        path = folder / name
        if path.is_file():
            check_files(folder, [path])
            return _read_index(path) if name.endswith(".index.json") else [path]
    raise CheckpointError(_describe_missing_weights(folder, names))


def describe_other_folder(folder: Path) -> str:
    """Return what a folder without config.json seems to be, and what to do with it."""
    for name, kind in _OTHER_MARKS.items():
        if (folder / name).is_file():
            return f"with {name} it is {kind}, which pipemill can't run"
    inner = [path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/config.json")]
    if inner:
        return f"name the folder that holds it: {max(inner, key=lambda path: path.stat().st_mtime)}"
    if others := _find_other_weights(folder):
        return f"it has {others}, which pipemill can't run: save the model with save_pretrained"
    names = sorted(path.name for path in folder.iterdir())
    more = ", …" if len(names) > 5 else ""
    found = f"it has {', '.join(names[:5])}{more}" if names else "it is empty"
    return f"{found}. Save the model there with save_pretrained"


def _find_other_weights(folder: Path) -> str:
    """Return a file for each format that other libraries save; "" if there is none."""
    others = {
        format: path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if (format := _OTHER_WEIGHTS.get(path.suffix.lower())) is not None and path.is_file()
    }
    return ", ".join(f"{name} ({format})" for format, name in others.items())


def check_dtype(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a dtype that torch does not have: loading asks torch for it."""
    for name in ("dtype", "torch_dtype"):
        value = config.get(name)
        if isinstance(value, str) and not _DTYPE.fullmatch(value):
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} is {value!r}, which torch does not have: write "
                "float32, float16 or bfloat16, or leave it out"
            )


def check_pickled(files: Iterable[Path]) -> None:
    """Raise CheckpointError for pickled weights that are cut off."""
    for file in files:
        with open(file, "rb") as opened:
            begin = opened.read(2)
        if not begin or (begin == b"PK" and not zipfile.is_zipfile(file)):
            raise CheckpointError(
                f"{file} ({file.stat().st_size:,} bytes) is cut off: copy or download it again"
            )


def read_tensors(files: Iterable[Path]) -> Tensors:
    """Return the name, type and shape of every weight in these safetensors files.

    Raises:
        CheckpointError: a file that is cut off, or that is not a safetensors file.
    """
    found: Tensors = {}
    for file in files:
        found.update(_read_header(file))
    return found


def _read_index(path: Path) -> list[Path]:
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not an index of shards ({type(error).__name__}: {error}): download the "
            "model again"
        ) from None
    files = [path.parent / str(shard) for shard in shards]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(files)} weight files that {path} lists are missing "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}): copy or download them "
            f"to {path.parent}"
        )
    check_files(path.parent, files)
    return files


def _read_header(file: Path) -> Tensors:
    size = file.stat().st_size
    with open(file, "rb") as opened:
        begin = opened.read(_SIZE_FIELD)
        length = struct.unpack("<Q", begin)[0] if len(begin) == _SIZE_FIELD else -1
        if not 0 < length <= min(_LONGEST_HEADER, size - _SIZE_FIELD):
            raise CheckpointError(
                f"{file} ({size:,} bytes) is not a safetensors file, or is cut off in its header: "
                "copy or download it again"
            )
        raw = opened.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        tensors = {
            name: (str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{file} is not a safetensors file ({type(error).__name__} in its header): copy or "
            "download it again"
        ) from None
    whole = _SIZE_FIELD + length + max(ends, default=0)
    if size != whole:
        state = "is cut off" if size < whole else "is damaged"
        raise CheckpointError(
            f"{file} {state}: it has {size:,} bytes, and its header says {whole:,}. Copy or "
            "download it again"
        )
    return tensors


def _describe_missing_weights(folder: Path, names: list[str]) -> str:
    message = f"{folder} holds no weights (looked for {', '.join(names)})"
    if (folder / "adapter_config.json").is_file():
        return f"{message}: {describe_adapter(folder)}"
    if others := _find_other_weights(folder):
        return (
            f"{message}, only {others}, which pipemill can't run: save the model with "
            "save_pretrained"
        )
    here = ", ".join(path.name for path in sorted(folder.iterdir()) if path.is_file())
    return f"{message}; it has {here}. Copy the weights there, or name another folder"


def describe_adapter(folder: Path) -> str:
    """Return what a PEFT adapter's folder is, and what to do with it."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path") or "its base model"
    except (OSError, ValueError, AttributeError):
        base = "its base model"
    return (
        f"it is a PEFT adapter of {base}, not a model: merge the two (load the adapter with peft, "
        "merge_and_unload, save_pretrained) and name the merged folder"
    )
