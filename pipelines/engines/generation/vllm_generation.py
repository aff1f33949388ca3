"""Texts written by vLLM, which has many rows in flight at once.

The classes and arguments used are those of vLLM 0.33: `LLMEngine`, `EngineArgs`, `SamplingParams`
and `StructuredOutputsParams`.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from pipemill.actors.faults.blame import JudgedError

from pipemill.errors import error_message

from ...media.media_libraries import MissingLibrary
from ..base import EngineFactory, Prompt, Values
from .batched_generation import BatchedGeneration, is_harmless
from .shared_loop import SharedLoop

# Settings of `generate` by the names that vLLM gives them.
_SAME = {
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
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


class EngineDied(JudgedError):
    """The engine can't go on: another process may, with the same rows."""

    blame = "process"


class VllmGeneration(BatchedGeneration):
    """Writes with a model that vLLM loads, on the GPU that the worker has.

    Raises:
        MissingLibrary: vLLM is not installed.
        ValueError: for a model that is no decoder.
    """

    is_exact = True

    def __init__(self, pipeline: Any, written: str) -> None:
        super().__init__(pipeline, written)
        if not self.after_prompt:
            kind = type(pipeline.model).__name__
            raise ValueError(
                f"the engine vllm (model.engine) runs decoders, and {kind} has an encoder, too: "
                "leave it out"
            )
        try:
            from vllm import EngineArgs, LLMEngine
        except ImportError as error:
            raise MissingLibrary(
                f"model.engine vllm needs vLLM ({error}): pip install 'pipemill[vllm]'"
            ) from error
        folder = pipeline.tokenizer.name_or_path
        self.engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=folder,
                tokenizer=folder,
                dtype=str(pipeline.model.dtype).removeprefix("torch."),
                seed=0,
                enable_prefix_caching=True,
                disable_log_stats=True,
            )
        )
        self._numbers = itertools.count()
        self._loop = SharedLoop()
        self._lock = threading.Lock()
        self._new: list[tuple[str, Prompt]] = []
        self._written: dict[str, list[int] | Exception] = {}

    def schedules(self, keywords: Values) -> bool:
        return True

    def write_all(self, prompts: list[Prompt], most: int | None = None) -> list[Values | Exception]:
        names = [str(next(self._numbers)) for _ in prompts]
        with self._lock:
            self._new += zip(names, prompts, strict=True)
        self._loop.run(self._step, lambda: all(name in self._written for name in names))
        return [
            self._output(prompt, self._written.pop(name))
            for name, prompt in zip(names, prompts, strict=True)
        ]

    def _step(self) -> None:
        with self._lock:
            new, self._new = self._new, []
        for name, prompt in new:
            try:
                ids = prompt.inputs["input_ids"][0].tolist()
                self.engine.add_request(
                    name, {"prompt_token_ids": ids}, self._sampling(prompt, len(ids))
                )
            except ValueError as error:  # such as a prompt that is too long
                self._written[name] = error
        try:
            outputs = self.engine.step() if self.engine.has_unfinished_requests() else []
        except Exception as error:
            raise EngineDied(f"vLLM ended: {error_message(error)}") from error
        for output in outputs:
            if output.finished:
                self._written[output.request_id] = list(output.outputs[0].token_ids)

    def _sampling(self, prompt: Prompt, length: int) -> Any:
        """Return a prompt's settings as vLLM takes them.

        Raises:
            ValueError: for a setting that vLLM has no equivalent of.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        settings = self._settings(prompt.keywords)
        config = self.pipeline.model.generation_config
        for name, value in settings.items():
            if name in _SAME or name in _FOLLOWED or is_harmless(name, value):
                continue
            if name in prompt.keywords:
                raise ValueError(
                    f"the engine vllm (model.engine) knows no {name}: leave it out, or take the "
                    "engine auto"
                )
        samples = bool(settings.get("do_sample"))
        ends = settings.get("eos_token_id", config.eos_token_id)
        most = settings.get("max_new_tokens")
        if most is None and settings.get("max_length") is not None:
            most = settings["max_length"] - length
        more = {
            own: settings[name]
            for name, own in _SAME.items()
            if settings.get(name) is not None
            and (samples or name not in ("top_k", "top_p", "min_p"))
        }
        if (schema := settings.get("json_schema")) is not None:
            more["structured_outputs"] = StructuredOutputsParams(json=schema)
        return SamplingParams(
            temperature=float(settings.get("temperature") or 1.0) if samples else 0.0,
            max_tokens=most,
            stop_token_ids=[ends] if isinstance(ends, int) else list(ends or []),
            seed=prompt.seed % 2**63 if samples else None,
            detokenize=bool(settings.get("stop_strings")),
            **more,
        )

    def _output(self, prompt: Prompt, written: list[int] | Exception) -> Values | Exception:
        import torch

        if isinstance(written, Exception):
            return written
        ids = prompt.inputs["input_ids"]
        whole = torch.cat([ids[0], torch.tensor(written, dtype=ids.dtype)])
        return {**prompt.inputs, self.written: whole[None, None]}


VLLM = EngineFactory(name="vllm", generate=VllmGeneration, loads_weights=False, modules=("vllm",))
