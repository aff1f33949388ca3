"""Say what stands in a job for a name that code around transformers has."""

from __future__ import annotations

from collections.abc import Collection

from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.tasks.generation_parameters import FIELDS

from pipemill.errors import did_you_mean

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
# Arguments of `transformers.pipeline`, of `from_pretrained` and of `SentenceTransformer.encode`.
_IN_A_JOB = {
    "batch_size": _SPEED,
    "max_batch_size": _SPEED,
    "num_workers": "rows are read while the model computes; leave it out",
    "device": "GPUs are found, and actors.num_gpus: cpu leaves them alone",
    "device_map": "GPUs are found, and actors.num_gpus says how many an actor has",
    "torch_dtype": "set model.dtype",
    "dtype": "set model.dtype",
    "revision": "set model.revision",
    "trust_remote_code": "set model.trust_remote_code",
    "adapter": "set model.adapter",
    "engine": "set model.engine",
    "columns": "set input.columns",
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
# Older names of parameters, with a parameter of the tasks that had them, and what does the same.
_OLDER = {
    "return_all_scores": ("top_k", "top_k: null gives the scores of all labels"),
    "grouped_entities": ("aggregation_strategy", "aggregation_strategy: simple groups entities"),
    "ignore_subwords": ("aggregation_strategy", "aggregation_strategy: first does that"),
    "tokenizer_kwargs": (
        "truncation",
        "truncation, max_length and others are parameters themselves",
    ),
}


def advise_key(key: str, known: Collection[str]) -> str:
    """Return a hint on a key that a job does not have: what to set instead.

    known: the keys that stand where it does.
    """
    if key in _IN_A_JOB:
        return _IN_A_JOB[key]
    hint = did_you_mean(key, known)
    of_job = "parameters" in known and hint.startswith("there are")
    return f"{hint}; parameters of the task go into parameters" if of_job else hint


def advise_parameter(name: str, spec: TaskSpec) -> str:
    """Return a hint on a parameter that a task does not have: what to set instead."""
    known = spec.parameters
    if any(name == column.name for column in spec.inputs):
        return f"it is a column of the input: --column {name}=COLUMN (input.columns)"
    if "generate_kwargs" in known and name in FIELDS:
        return f"set it in generate_kwargs: {{{name}: …}}"
    if name in _OLDER and _OLDER[name][0] in known:
        return _OLDER[name][1]
    if name in _IN_A_JOB:
        return _IN_A_JOB[name]
    return did_you_mean(name, known) if known else "it takes none"
