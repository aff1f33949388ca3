"""Hint at the key that the author of a config meant."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from typing import Any, get_args, get_origin

from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.tasks.generation_parameters import FIELDS
from pydantic import BaseModel

from pipemill.errors import did_you_mean

_NOT_SECTIONS = ("task", "parameters", "pipeline_class", "tasks")
_PART = (
    "it is read from the model's folder; to take another one, save it there, or give "
    "model={{'model': …, '{name}': …}} in Python"
)
_KWARGS = (
    "the dtype is model.dtype, pipemill chooses the attention, and quantized weights are those of "
    "a folder that holds them"
)
_SPEED = "micro-batches are measured, or batching.max_tokens sets their size"
_HUB = "it comes from the environment"
_COLUMNS = "answers are columns of the output"
# Names that other libraries have for what a job says elsewhere, or need not say.
IN_A_JOB = {
    "batch_size": _SPEED,
    "max_batch_size": _SPEED,
    "num_workers": "rows are read while the model computes; leave it out",
    "device": "GPUs are found, and actors.num_gpus: cpu leaves them alone",
    "device_map": "GPUs are found, and actors.num_gpus says how many an actor has",
    "torch_dtype": "set model.dtype",
    "concurrency": "set actors.max",
    "overwrite": "name another output, or remove this one",
    "resume": "the same job again finishes its output; leave it out",
    "where": "it stands in an entry of tasks",
    **dict.fromkeys(("sep", "separator"), "set input.delimiter"),
    **dict.fromkeys(("quoting", "quotechar"), "set input.quotes"),
    **{
        name: _PART.format(name=name)
        for name in ("tokenizer", "feature_extractor", "image_processor", "processor")
    },
    "config": "it is read from the model's folder: write what is to differ into its config.json",
    "generation_config": "set its values in parameters, each by its name",
    "use_fast": "a fast tokenizer is taken wherever the model has one",
    "model_kwargs": _KWARGS,
    "attn_implementation": _KWARGS,
    "quantization_config": _KWARGS,
    "load_in_8bit": _KWARGS,
    "load_in_4bit": _KWARGS,
    "token": f"{_HUB}: HF_TOKEN",
    "use_auth_token": f"{_HUB}: HF_TOKEN",
    "cache_dir": f"{_HUB}: HF_HOME",
    "local_files_only": f"{_HUB}: HF_HUB_OFFLINE=1",
    "timeout": "a server that sends nothing for a minute is given up; leave it out",
    "show_progress_bar": "each run shows how far it is; leave it out",
    "convert_to_numpy": _COLUMNS,
    "convert_to_tensor": _COLUMNS,
    "return_tensors": _COLUMNS,
    "return_text": _COLUMNS,
    "return_type": _COLUMNS,
    "output_value": f"{_COLUMNS}; for a vector of each token set pooling: none",
    "precision": "vectors are float32; the model computes in model.dtype",
}
# Other names of parameters, mostly older ones, with a parameter of the tasks that are meant, and
# what does the same.
_OTHER_NAMES = {
    "max_tokens": (
        "max_new_tokens",
        "max_new_tokens is the most tokens that are written, and batching.max_tokens is the size "
        "of a micro-batch",
    ),
    "return_all_scores": ("top_k", "top_k: null gives the scores of all labels"),
    "grouped_entities": ("aggregation_strategy", "aggregation_strategy: simple groups entities"),
    "ignore_subwords": ("aggregation_strategy", "aggregation_strategy: first does that"),
    "tokenizer_kwargs": (
        "truncation",
        "truncation, max_length and others are parameters themselves",
    ),
}


def hint_key(
    name: str, keys: Iterable[str], job: type[BaseModel], parameters: Container[str] = ()
) -> str:
    """Return a hint on an unknown key, to end an error message with.

    Args:
        name: the key.
        keys: those that stand where it does.
        job: the class whose sections may have it.
        parameters: those of the job's task.

    Returns:
        The same key at the top or in other sections, else what says it in a job, else the nearest
        one of `keys`, else all of these.
    """
    return _hint_elsewhere(name, job, parameters) or did_you_mean(name, keys)


def _hint_elsewhere(name: str, job: type[BaseModel], parameters: Container[str] = ()) -> str:
    keys = [f"{section}.{name}" for section in find_sections(name, job, parameters)]
    if name in job.model_fields:
        keys = [name, *keys]
    if keys:
        return f"did you mean {' or '.join(map(repr, keys))}?"
    return IN_A_JOB.get(name, "")


def hint_parameter(name: str, spec: TaskSpec, job: type[BaseModel]) -> str:
    """Return a hint on a parameter that a task does not have, as `hint_key` does."""
    known = spec.parameters
    if any(name == column.name for column in spec.inputs):
        return f"it is a column of the input: --column {name}=COLUMN (input.columns)"
    if "generate_kwargs" in known and name in FIELDS:
        return f"set it in generate_kwargs: {{{name}: …}}"
    if name in _OTHER_NAMES and _OTHER_NAMES[name][0] in known:
        return _OTHER_NAMES[name][1]
    nearest = did_you_mean(name, known) if known else "it takes none"
    return _hint_elsewhere(name, job) or nearest


def find_sections(name: str, job: type[BaseModel], parameters: Container[str] = ()) -> list[str]:
    """Return the sections of a job that have a key, where `parameters` are those of its task."""
    sections = [section for section in job.model_fields if section not in _NOT_SECTIONS]
    found = [section for section in sections if name in list_keys(job, [section])]
    return [*found, "parameters"] if name in parameters else found


def list_parameters(data: Mapping[str, Any]) -> set[str]:
    """Return the parameters that the tasks of a config take; none of a task that is unknown."""
    from pipemill.pipelines.registry import find_task

    tasks = data.get("tasks")
    entries = [data, *tasks] if isinstance(tasks, list | tuple) else [data]
    names = [one.get("task") for one in entries if isinstance(one, Mapping)]
    parameters: set[str] = set()
    for name in names:
        with suppress(LookupError, TypeError):  # another type than a text
            parameters.update(find_task(name or "").parameters)
    return parameters


def list_keys(model: type[BaseModel], parents: Iterable[str]) -> list[str]:
    """Return the keys of the section that `parents` lead to."""
    for parent in (key for key in parents if not key.isdecimal()):
        annotation = model.model_fields[parent].annotation
        options = [annotation, *get_args(annotation)]
        model = next(
            o
            for o in options
            if get_origin(o) is None and isinstance(o, type) and issubclass(o, BaseModel)
        )
    return list(model.model_fields)
