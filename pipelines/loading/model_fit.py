"""Check that a checkpoint fits its task before anything is started: no weights are read.

transformers fills weights that a checkpoint lacks with random numbers, and makes a tokenizer of
special tokens where it finds no vocabulary; both only log a line. Here transformers itself loads
the model, with its renamings, ties and exceptions, from tensors that have a name, a type and a
shape, and no values (torch's meta device). What this finds is certain; where anything else goes
wrong on the way there is no verdict, and the worker's own loading says what is wrong.

Run as a program it does the same in a process of its own, for drivers that import no torch.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pipemill.actors.child_process import start_python

from ..restored import restore_pipelines
from ..text.model_limits import count_embedding_rows
from .checkpoint import CheckpointError, Tensors, find_weights, read_tensors
from .fast_imports import gc_paused
from .missing_weights import describe_missing, find_missing_weights
from .task_loader import LoadTask

# A vocabulary of fewer tokens than this share of the embedding table is another model's. Tables are
# padded, and hold tokens for other media, but are not twice as large as their vocabulary.
_LEAST_VOCABULARY = 0.5
# A share of the vocabulary that may lie beyond the table: BART's <mask> does.
_MOST_BEYOND = 0.01


def find_misfit(load: LoadTask) -> str | None:
    """Return why the model in a folder can't do the task, or None if nothing is known against it.

    Args:
        load: of a model in a local folder; its `model.allow_missing` leaves missing weights out.
    """
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        return _find_misfit(load)
    except Exception:  # no verdict: other code than transformers' own, or a library is missing
        return None
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


class FitCheck:
    """Runs `find_misfit` in a process of its own, from the start of the block to `result`."""

    def __init__(self, load: LoadTask) -> None:
        self._load = pickle.dumps(load)

    def __enter__(self) -> FitCheck:
        self._process = start_python(
            __name__,
            # It looks at no weights, and should not wait for a GPU to wake up.
            environment={"CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.DEVNULL,
            new_session=False,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(self._load)
            self._process.stdin.close()
        self._process.stdin = None
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def result(self) -> str | None:
        """Wait for what `find_misfit` returns; None if the process died."""
        try:
            answer, _ = self._process.communicate()
            return pickle.loads(answer)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return None


def _find_misfit(load: LoadTask) -> str | None:
    # In a process of the user's own they are there, beside much that is not to stay.
    with nullcontext() if "transformers.pipelines" in sys.modules else gc_paused():
        restore_pipelines()
    model, task = load.resolved_model(), load.kind().name
    classes, pipeline_class = model.find_classes(task)
    try:
        config = model.read_config()
    except ValueError as error:
        # A module of the user's may make its own kind of model known while it is imported.
        return None if load.own else f"{model.path}: {str(error).splitlines()[0]}"
    if encoder := model.find_encoder(task):
        classes = (encoder,)
    if _is_remote(config, model) or getattr(config, "quantization_config", None) is not None:
        return None
    model_class = next(filter(None, (_concrete(c, config) for c in classes)), None)
    if model_class is None and not load.own:
        model_class = _find_named_class(config, load, pipeline_class)
        if model_class is None:
            return f"{model.path} {_describe_other_kind(config, task, classes)}"
    if model_class is None:
        return None
    if not model.allow_missing and (reason := _find_other_head(config, model_class, task)):
        return f"{model.path} {reason}"
    tensors = _read_tensors(model, config)
    loaded, info = _load_without_values(model_class, config, tensors)
    if not model.allow_missing:
        missing = find_missing_weights(loaded, info["missing_keys"], task)
        if missing:
            return f"{model.path}: {describe_missing(loaded, missing, info['unexpected_keys'])}"
        if info["mismatched_keys"]:
            return f"{model.path}: {_describe_mismatch(loaded, info['mismatched_keys'])}"
    if getattr(pipeline_class, "_load_tokenizer", False) and _reads_text(load):
        return _find_tokenizer_misfit(model, loaded)
    return None


def _reads_text(load: LoadTask) -> bool:
    return any(column.kind in ("text", "messages") for column in load.kind().inputs)


def _is_remote(config: Any, model: Any) -> bool:
    return bool(model.trust_remote_code and getattr(config, "auto_map", None))


def _read_tensors(model: Any, config: Any) -> Tensors:
    """Return what the weights' headers say, on this machine or on the Hub."""
    folder = model.local_folder()
    if folder is not None:
        try:
            files = find_weights(folder, config.to_dict(), pickled=not model.use_safetensors)
            if files[0].suffix == ".safetensors":
                return read_tensors(files)
            return _read_pickled(files)
        except CheckpointError:
            if os.path.isdir(model.path):
                raise
    from huggingface_hub import get_safetensors_metadata

    files = get_safetensors_metadata(model.path, revision=model.revision).files_metadata
    return {
        name: (str(tensor.dtype), tuple(tensor.shape))
        for file in files.values()
        for name, tensor in file.tensors.items()
    }


def _read_pickled(files: list[Path]) -> Tensors:
    import torch

    names = {_torch_type(name): name for name in _TYPES}
    found: Tensors = {}
    for file in files:
        # On the meta device nothing but names and shapes is read; and no code is run.
        weights = torch.load(file, map_location="meta", mmap=True, weights_only=True)
        for name, tensor in weights.items():
            found[name] = (names[tensor.dtype], tuple(tensor.shape))
    return found


def _concrete(model_class: Any, config: Any) -> Any:
    """Return the class that an auto class makes of this configuration, or None."""
    from transformers.models.auto.auto_factory import _get_model_class

    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class
    return _get_model_class(config, mapping) if type(config) in mapping else None


def _find_named_class(config: Any, load: LoadTask, pipeline_class: Any) -> Any:
    """Return the class that config.json names, if the task's pipeline can work with it.

    transformers takes it where no auto class of the task knows the model, whatever it is. What
    generates from the right medium does work: T5 continues texts, and a LLaMA summarizes.
    """
    import transformers

    named = getattr(transformers, (config.architectures or [""])[0], None)
    if named is None:
        return None
    if (load.kind().name, type(config).__name__) in _BEYOND_TABLES:
        return named
    if not (getattr(pipeline_class, "_pipeline_calls_generate", False) and named.can_generate()):
        return None
    kinds = {column.kind for column in load.kind().inputs}
    medium = next((kind for kind in ("audio", "image") if kind in kinds), "text")
    return named if named.main_input_name in _MAIN_INPUTS[medium] else None


def _describe_other_kind(config: Any, task: str, classes: tuple[Any, ...]) -> str:
    named = ", ".join(config.architectures or ()) or f"a model of type {config.model_type}"
    wanted = " or ".join(c.__name__ for c in classes)
    return (
        f"holds {named} (model_type {config.model_type}), which can't do {task}: that needs a "
        f"model that transformers' {wanted} can load"
    )


# Heads whose weights have the same names in many models, and another meaning.
_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
    "ForAudioFrameClassification",
    "ForImageClassification",
    "ForVideoClassification",
)


def _find_other_head(config: Any, model_class: Any, task: str) -> str | None:
    def head(name: str) -> str | None:
        return next((end for end in _CLASSIFIERS if name.endswith(end)), None)

    named, wanted = (config.architectures or [""])[0], model_class.__name__
    if head(named) is None or head(wanted) is None or head(named) == head(wanted):
        return None
    return (
        f"holds {named} (architectures in config.json), and {task} needs a {wanted}: name a model "
        "that was trained for this task"
    )


# By the medium that a task reads, what a model of it calls its input.
_MAIN_INPUTS = {
    "text": ("input_ids",),
    "image": ("pixel_values", "input_ids"),
    "audio": ("input_features", "input_values"),
}
# Pairs that work though the task's auto classes do not list them.
_BEYOND_TABLES = {("document-question-answering", "VisionEncoderDecoderConfig")}


def _load_without_values(
    model_class: Any, config: Any, tensors: Tensors
) -> tuple[Any, Mapping[str, Any]]:
    import torch

    weights = {
        name: torch.empty(shape, dtype=_torch_type(dtype), device="meta")
        for name, (dtype, shape) in tensors.items()
    }
    with _values_left_out():
        return model_class.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )


# torch's names of safetensors' types.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def _torch_type(name: str) -> Any:
    import torch

    return getattr(torch, _TYPES[name])


@contextmanager
def _values_left_out() -> Iterator[None]:
    """Keep transformers from asking for values while it loads tensors that have none.

    Raise KeyError where this transformers has no such steps: then there is no verdict.
    """
    import torch
    from transformers import PreTrainedModel, core_model_loading

    usual = torch.equal

    def equal(one: Any, other: Any) -> bool:  # of tied weights that are saved twice
        return one.shape == other.shape if one.is_meta or other.is_meta else usual(one, other)

    steps: list[tuple[Any, str, Any]] = [
        (core_model_loading, "_materialize_copy", lambda tensor, *_, **__: tensor[...]),
        (PreTrainedModel, "_move_missing_keys_from_meta_to_device", lambda *_: None),
        (PreTrainedModel, "_initialize_missing_keys", lambda *_: None),
        (torch, "equal", equal),
    ]
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in steps]
    try:
        for owner, name, step in steps:
            setattr(owner, name, step)
        yield
    finally:
        for owner, name, step in before:
            setattr(owner, name, step)


def _describe_mismatch(model: Any, mismatched: Any) -> str:
    name, there, wanted = sorted(mismatched)[0]
    more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
    return (
        f"the checkpoint's {name} has the shape {tuple(there)}, and {type(model).__name__} needs "
        f"{tuple(wanted)} by config.json{more}: config.json and the weights are of two models"
    )


def _find_tokenizer_misfit(model: Any, loaded: Any) -> str | None:
    from transformers import AutoTokenizer

    folder = model.path
    tokenizer = AutoTokenizer.from_pretrained(
        model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    try:
        vocabulary = tokenizer.get_vocab()
    except Exception:  # characters and bytes need none
        return None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    regular = [number for token, number in vocabulary.items() if token not in special]
    if not regular:
        looked = ", ".join(dict.fromkeys(type(tokenizer).vocab_files_names.values()))
        return (
            f"{folder} holds no vocabulary for its tokenizer (looked for {looked}): every word "
            "would be unknown. Copy the tokenizer's files there (tokenizer.save_pretrained)"
        )
    rows = count_embedding_rows(loaded)
    if rows is None:
        return None
    beyond = sum(number >= rows for number in regular)
    if beyond > _MOST_BEYOND * len(regular):
        return (
            f"the tokenizer in {folder} has {len(vocabulary):,} tokens, and {beyond:,} of their "
            f"ids are beyond the model's embedding table of {rows:,}: the tokenizer is of another "
            "model"
        )
    if len(vocabulary) < _LEAST_VOCABULARY * rows:
        return (
            f"the tokenizer in {folder} has {len(vocabulary):,} tokens, and the model's embedding "
            f"table has room for {rows:,}: the tokenizer is of another model"
        )
    return None


def _answer() -> None:
    """Read a LoadTask from stdin, and write what `find_misfit` returns to stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model's code prints is no answer
    load = pickle.load(sys.stdin.buffer)
    pickle.dump(find_misfit(load), answers)
    answers.close()


if __name__ == "__main__":
    _answer()
