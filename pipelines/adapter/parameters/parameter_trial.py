"""Try the user's parameters when a model is loaded: what would fail for every row fails once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pipemill.actors.faults.blame import is_out_of_memory
from pipemill.actors.task import Loaded

from pipemill.errors import error_message

from ...pipeline_task import PipelineTask
from ..row_seed import seed_row

Keywords = dict[str, Any]
# What decides how much is written: for a short input one token is enough.
_LENGTHS = ("min_new_tokens", "min_length", "max_length", "max_time")


def find_keywords(
    declared: PipelineTask, pipeline: Any, given: Mapping[str, Any]
) -> tuple[Keywords, ...]:
    """Return the keywords of preprocess, _forward and postprocess.

    given: parameters as the pipeline takes them. Raises what the pipeline raises.
    """
    # Copies: some pipelines write into the dictionaries they are given.
    copies = copy.deepcopy({k: v for k, v in given.items() if k not in declared.own_parameters})
    wanted = pipeline._sanitize_parameters(**copies)
    loaded = pipeline._preprocess_params, pipeline._forward_params, pipeline._postprocess_params
    before, during, after = ({**a, **b} for a, b in zip(loaded, wanted, strict=True))
    # Whisper's prompt, for one: not every pipeline moves what it is given to its model's device.
    during = pipeline._ensure_tensor_on_device(during, pipeline.device)
    if getattr(pipeline, "_pipeline_calls_generate", False):
        _give_tokenizer(pipeline, during)
    return before, during, after


def _give_tokenizer(pipeline: Any, during: Keywords) -> None:
    """Add the tokenizer with which `generate` finds stop strings, and heals a prompt's end."""
    nested = during.get("generate_kwargs") or {}
    for setting in ("stop_strings", "token_healing"):
        keywords = nested if setting in nested else during
        own = getattr(getattr(pipeline.model, "generation_config", None), setting, None)
        if keywords.get(setting, own):
            found = pipeline.tokenizer or getattr(pipeline.processor, "tokenizer", None)
            keywords.setdefault("tokenizer", found)


def check_parameters_work(declared: PipelineTask, loaded: Loaded) -> None:
    """Raise ValueError for parameters that fail for every row.

    They fail if the pipeline refuses them, or if it fails on a short input with them, but not
    without them.
    """
    parameters = {n: v for n, v in loaded.parameters.items() if n not in declared.own_parameters}
    if declared.any_parameter or not parameters:
        return
    for attempt in (_take, _run) if declared.sample is not None else (_take,):
        error = _find_failure(attempt, declared, loaded.pipeline, parameters)
        if error is not None and _find_failure(attempt, declared, loaded.pipeline, {}) is None:
            alone = {
                name: value
                for name, value in parameters.items()
                if _find_failure(attempt, declared, loaded.pipeline, {name: value}) is not None
            }
            wrong = ", ".join(f"{name}: {value!r}" for name, value in (alone or parameters).items())
            raise ValueError(
                f"parameters of {declared.name}: {type(loaded.pipeline.model).__name__} can't "
                f"work with {wrong} ({type(error).__name__}: {error_message(error)})"
            )


def _find_failure(
    attempt: Callable[[PipelineTask, Any, Keywords], None],
    declared: PipelineTask,
    pipeline: Any,
    parameters: Mapping[str, Any],
) -> BaseException | None:
    try:
        attempt(
            declared, pipeline, {**declared.defaults, **declared.to_pipeline_parameters(parameters)}
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit) or is_out_of_memory(error):
            raise
        return error
    return None


def _take(declared: PipelineTask, pipeline: Any, given: Keywords) -> None:
    steps = (pipeline.preprocess, pipeline._forward, pipeline.postprocess)
    for step, keywords in zip(steps, find_keywords(declared, pipeline, given), strict=True):
        # Some pipelines take a parameter that the step it is for does not.
        inspect.signature(step).bind_partial(None, **keywords)


def _run(declared: PipelineTask, pipeline: Any, given: Keywords) -> None:
    from transformers.pipelines.base import ChunkPipeline

    assert declared.sample is not None
    before, during, after = find_keywords(declared, pipeline, given)
    chunked = isinstance(pipeline, ChunkPipeline)
    made = pipeline.preprocess(declared.sample(pipeline, given), **before)
    if pipeline.device.type == "meta":
        list(made) if chunked else made
        return
    if declared.written is not None or getattr(pipeline, "_pipeline_calls_generate", False):
        during = _shorten(during, pipeline)
    with seed_row([], pipeline.device):
        outputs = [pipeline.forward(one, **during) for one in (made if chunked else [made])]
    pipeline.postprocess(outputs if chunked else outputs[0], **after)


def _shorten(during: Keywords, pipeline: Any) -> Keywords:
    """Return the keywords of a `_forward` that writes, so that it writes one token."""
    name = "generate_kwargs"  # for `generate` alone, where the pipeline tells them apart
    taken = inspect.signature(pipeline._forward).parameters.get(name)
    if name in during or (taken is not None and taken.kind != taken.VAR_KEYWORD):
        return {**during, name: _shorten_generation(during.get(name) or {})}
    return _shorten_generation(during)


def _shorten_generation(keywords: Keywords) -> Keywords:
    return {n: v for n, v in keywords.items() if n not in _LENGTHS} | {"max_new_tokens": 1}
