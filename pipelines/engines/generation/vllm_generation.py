"""Texts written by vLLM, which has many rows in flight at once.

The classes and arguments used are `LLMEngine`, `EngineArgs`, `SamplingParams` and
`StructuredOutputsParams`: those of vLLM 0.30, which are the same in 0.33.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipemill.actors.faults.blame import JudgedError

from pipemill.errors import error_message

from ...media.media_libraries import MissingLibrary
from ..base import EngineFactory, Prompt, Values
from .batched_generation import BatchedGeneration, is_harmless
from .engine_processes import EngineProcesses, tell_end
from .shared_loop import SharedLoop
from .vllm_images import IMAGES, leave_images

# Settings of `generate` by the names that vLLM gives them: of a text that is sampled, of all.
_SAME_IF_SAMPLED = {"top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
_SAME = {
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
}
# Those that are followed in another way, or have no effect there.
_FOLLOWED = (
    "do_sample", "temperature", "max_new_tokens", "max_length", "eos_token_id", "pad_token_id",
    "bos_token_id", "use_cache", "tokenizer", "json_schema", "return_dict_in_generate",
    "cache_implementation", "prefix_length",
)  # fmt: skip
# Those that a model's own config may have, too. Much else in it says nothing about the text.
_UNKNOWN = (
    "num_beams", "num_return_sequences", "no_repeat_ngram_size", "min_length", "bad_words_ids",
    "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id",
    "sequence_bias", "exponential_decay_length_penalty", "guidance_scale", "penalty_alpha",
)  # fmt: skip
_UNKNOWN_IF_SAMPLED = ("typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
# What `generate` takes unless a model or a call says otherwise.
_USUAL_TOP_K = 50
# Of the classes of models whose code is in their folders.
_REMOTE_CODE = "transformers_modules."
# What vLLM logs is not to be among what a command prints, nor to bury what pipemill says.
_LOGGING = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "WARNING"}


class EngineDied(JudgedError):
    """The engine can't go on: another process may, with the same rows."""

    blame = "process"


class VllmGeneration(BatchedGeneration):
    """Writes with a model that vLLM loads, on the GPUs that the worker holds.

    Of several each has a part of every layer (tensor parallelism).

    Raises:
        MissingLibrary: vLLM is not installed.
        ValueError: for a model that is no decoder.
    """

    is_exact = True

    def __init__(self, pipeline: Any, written: str, num_gpus: float = 0) -> None:
        """num_gpus: how many those are, or a share of one."""
        super().__init__(pipeline, written)
        if not self.after_prompt:
            kind = type(pipeline.model).__name__
            raise ValueError(
                f"the engine vllm (model.engine) runs decoders, and {kind} has an encoder, too: "
                "leave it out"
            )
        if getattr(pipeline, "processor", None) is not None:
            leave_images(pipeline.processor)
        for name, value in _LOGGING.items():
            os.environ.setdefault(name, value)
        vllm = _import_vllm()
        folder = pipeline.tokenizer.name_or_path
        with EngineProcesses() as processes:
            self.engine = vllm.LLMEngine.from_engine_args(
                vllm.EngineArgs(
                    model=folder,
                    tokenizer=folder,
                    dtype=str(pipeline.model.dtype).removeprefix("torch."),
                    # The job allowed it, or the model's class would be one of transformers.
                    trust_remote_code=type(pipeline.model).__module__.startswith(_REMOTE_CODE),
                    max_model_len=-1,  # the model's, or as long as memory allows
                    seed=0,
                    enable_prefix_caching=True,
                    disable_log_stats=True,
                    tensor_parallel_size=max(int(num_gpus), 1),
                    # Never by Ray: its GPUs are held by this worker.
                    distributed_executor_backend="mp" if num_gpus > 1 else None,
                )
            )
        if processes.started:  # none where vLLM was told to compute in this one
            core = self.engine.engine_core
            processes.end_with(self, core.shutdown)
            tell_end(processes.started, core.outputs_queue.put)
        self._numbers = itertools.count()
        self._loop = SharedLoop()
        self._lock = threading.Lock()
        self._new: list[tuple[str, Prompt]] = []
        self._written: dict[str, list[int] | Exception] = {}
        self._died: str | None = None

    def schedules(self, keywords: Values) -> bool:
        return True

    def write_all(self, prompts: list[Prompt], most: int | None = None) -> list[Values | Exception]:
        names = [str(next(self._numbers)) for _ in prompts]
        with self._lock:
            self._new += zip(names, prompts, strict=True)
        self._loop.run(self._step, lambda: all(name in self._written for name in names))
        return [
            self._make_output(prompt, self._written.pop(name))
            for name, prompt in zip(names, prompts, strict=True)
        ]

    def _step(self) -> None:
        with self._lock:
            new, self._new = self._new, []
        if self._died is not None:  # and would be waited for forever
            raise EngineDied(self._died)
        try:
            for name, prompt in new:
                self._add(name, prompt)
            computes = self.engine.has_unfinished_requests()
            if not (new or computes):  # what this thread waits for never comes
                raise RuntimeError("it returned no text for a prompt")
            outputs = self.engine.step() if computes else []
        except Exception as error:
            self._died = f"vLLM ended: {error_message(error)}"
            raise EngineDied(self._died) from error
        for output in outputs:
            if output.finished:
                self._written[output.request_id] = _read_output(output.outputs[0])

    def _add(self, name: str, prompt: Prompt) -> None:
        """Give a prompt to vLLM, unless it is refused: such as one that is too long."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            given: Values = {"prompt_token_ids": self._begin(prompt)}
            if images := prompt.inputs.get(IMAGES):
                given["multi_modal_data"] = {"image": images}
            self.engine.add_request(name, given, self._make_sampling(prompt))
        except EngineDeadError:
            raise
        except Exception as error:  # of various classes, for a prompt, a setting or a schema
            self._written[name] = error

    def _begin(self, prompt: Prompt) -> list[int]:
        """Return the tokens to write on after, without padding.

        Raises:
            ValueError: for an empty prompt, if the model has no token that begins a text.
        """
        ids, mask = prompt.inputs["input_ids"][0], prompt.inputs.get("attention_mask")
        if len(ids):
            return list((ids if mask is None else ids[mask[0] != 0]).tolist())
        config = self.pipeline.model.generation_config
        begin = self._merge_settings(prompt.keywords).get("bos_token_id", config.bos_token_id)
        if begin is None:
            raise ValueError("the prompt is empty, and the model has no bos_token_id to begin with")
        return [begin]

    def _make_sampling(self, prompt: Prompt) -> Any:
        """Return a prompt's settings as vLLM takes them.

        Raises:
            ValueError: for a setting that vLLM has no equivalent of.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        settings = self._merge_settings(prompt.keywords)
        samples = bool(settings.get("do_sample"))
        self._check_settings(settings, prompt.keywords)
        ends = settings.get("eos_token_id", self.pipeline.model.generation_config.eos_token_id)
        ends = [ends] if isinstance(ends, int) else ends or []
        most = settings.get("max_new_tokens")
        if most is None and settings.get("max_length") is not None:
            most = settings["max_length"] + settings.get("prefix_length", 0)
            most -= max(prompt.inputs["input_ids"].shape[1], 1)
        names = _SAME | _SAME_IF_SAMPLED if samples else _SAME
        more = {
            own: settings[name] for name, own in names.items() if settings.get(name) is not None
        }
        if samples:
            more.setdefault("top_k", _USUAL_TOP_K)
        if (schema := settings.get("json_schema")) is not None:
            more["structured_outputs"] = StructuredOutputsParams(json=schema)
        return SamplingParams(
            temperature=float(settings.get("temperature") or 1.0) if samples else 0.0,
            max_tokens=most,
            stop_token_ids=[end for end in ends if end >= 0],  # with -1 no token ends a text
            ignore_eos=schema is None,  # by its own choice: where a schema is met, it needs one
            seed=prompt.seed % 2**63 if samples else None,
            detokenize=bool(settings.get("stop_strings")),
            **more,
        )

    def _check_settings(self, settings: Values, keywords: Values) -> None:
        """Raise ValueError for a setting that vLLM has no equivalent of."""
        samples = bool(settings.get("do_sample"))
        unknown = (*_UNKNOWN, *_UNKNOWN_IF_SAMPLED) if samples else _UNKNOWN
        given = (keywords.get("generate_kwargs") or {}) if self.nests else keywords
        for name, value in settings.items():
            if name in (*_SAME, *_SAME_IF_SAMPLED, *_FOLLOWED) or is_harmless(name, value):
                continue
            if name in given or name in unknown:
                raise ValueError(
                    f"the engine vllm (model.engine) knows no {name} ({value!r}): leave it out"
                    f"{'' if name in given else ' of generation_config.json'}, or take "
                    "the engine auto"
                )
        if samples and settings.get("temperature") == 0:
            raise ValueError("temperature must be above 0 with do_sample: true; it is 0")

    def _make_output(self, prompt: Prompt, written: list[int] | Exception) -> Values | Exception:
        import torch

        from ...restored.generation_config import GeneratingPipeline

        if isinstance(written, Exception):
            return written
        ids = prompt.inputs["input_ids"]
        begin = ids[0].tolist() or self._begin(prompt)
        whole = torch.tensor([[*begin, *written]], dtype=ids.dtype)
        if not isinstance(self.pipeline, GeneratingPipeline):  # which may have several for a row
            whole = whole[None]
        # As the pipeline itself says that a prompt was empty.
        output = {**prompt.inputs, "input_ids": ids if ids.shape[1] else None, self.written: whole}
        output.pop("attention_mask", None)  # the pipeline returns none
        if "text" in output:
            output["prompt_text"] = output.pop("text")
        return output


def _read_output(output: Any) -> list[int] | Exception:
    """Return the tokens of a text; an error if vLLM gave it up, whatever it has until then."""
    if output.finish_reason in ("error", "abort"):
        return ValueError("vLLM gave this text up (see its log), as for a schema it can't follow")
    return list(output.token_ids)


def _import_vllm() -> Any:
    """Import vLLM. It keeps exceptions of its import, and with them all frames of that thread.

    In a thread that loads a model, these hold the model.
    """
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(lambda: __import__("vllm").LLMEngine).result()
        except ImportError as error:
            raise MissingLibrary(
                f"model.engine vllm needs vLLM ({error}): pip install 'pipemill[vllm]'"
            ) from error
    return sys.modules["vllm"]


VLLM = EngineFactory(
    name="vllm",
    generate=VllmGeneration,
    schedules_all=True,
    loads_weights=False,
    spreads=True,
    modules=("vllm",),
)
