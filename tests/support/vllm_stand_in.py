"""The classes of vLLM that pipemill uses, over transformers.

A request gets one token in each step, beside all others.
"""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from typing import Any, ClassVar

# A prompt that begins with this token ends the engine.
DEADLY = 359


@dataclass
class EngineArgs:
    model: str
    tokenizer: str
    dtype: str
    trust_remote_code: bool
    max_model_len: int
    seed: int
    enable_prefix_caching: bool
    disable_log_stats: bool
    tensor_parallel_size: int
    distributed_executor_backend: str | None


@dataclass
class StructuredOutputsParams:
    json: Any


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int | None
    stop_token_ids: list[int]
    ignore_eos: bool
    seed: int | None
    detokenize: bool
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    stop: Any = None
    structured_outputs: Any = None


class VLLMValidationError(Exception):
    pass


class EngineDeadError(Exception):
    pass


@dataclass
class _Request:
    ids: list[int]
    params: SamplingParams
    written: list[int] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


class LLMEngine:
    made: ClassVar[list[LLMEngine]] = []

    @classmethod
    def from_engine_args(cls, args: EngineArgs) -> LLMEngine:
        return cls(args)

    def __init__(self, args: EngineArgs) -> None:
        import torch
        import transformers as tf

        self.args = args
        config = tf.AutoConfig.from_pretrained(args.model)
        self.limits = config.get_text_config()
        sees = hasattr(config, "vision_config")
        kind = tf.AutoModelForImageTextToText if sees else tf.AutoModelForCausalLM
        self.model = kind.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
        self.processor = tf.AutoProcessor.from_pretrained(args.model) if sees else None
        self.requests: dict[str, _Request] = {}
        self.seen: list[SamplingParams] = []
        self.most = 0
        LLMEngine.made.append(self)

    def add_request(self, request_id: str, prompt: Any, params: SamplingParams) -> str:
        ids = prompt["prompt_token_ids"]
        if any(not 0 <= one < self.limits.vocab_size for one in params.stop_token_ids):
            raise VLLMValidationError("stop_token_ids contain out-of-vocab token ids")
        if len(ids) >= self.limits.max_position_embeddings:
            raise VLLMValidationError(f"the prompt has {len(ids)} tokens, too many for the model")
        if not ids:
            raise VLLMValidationError("the prompt is empty")
        request = _Request(ids, params)
        if images := prompt.get("multi_modal_data", {}).get("image"):
            text = self.processor.tokenizer.decode(ids)
            inputs = self.processor(images, text, return_tensors="pt")
            request.ids = inputs["input_ids"][0].tolist()
            request.seen = {"pixel_values": inputs["pixel_values"]}
        self.requests[request_id] = request
        self.seen.append(params)
        return request_id

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def step(self) -> list[Any]:
        import torch

        self.most = max(self.most, len(self.requests))
        finished = []
        for name, one in list(self.requests.items()):
            if one.ids[0] == DEADLY:
                raise EngineDeadError("EngineCore encountered an issue")
            with torch.no_grad():
                ids = torch.tensor([one.ids + one.written])
                logits = self.model(ids, **one.seen).logits[0, -1]
            one.written.append(int(logits.argmax()))
            reason = self._end_of(one)
            if reason is not None:
                del self.requests[name]
                answer = types.SimpleNamespace(token_ids=tuple(one.written), finish_reason=reason)
                finished.append(
                    types.SimpleNamespace(request_id=name, finished=True, outputs=[answer])
                )
        return finished

    def _end_of(self, one: _Request) -> str | None:
        schema = one.params.structured_outputs
        if schema is not None and schema.json == {"$ref": "#"}:  # found by the engine's process
            return "error"
        if one.written[-1] in one.params.stop_token_ids:
            return "stop"
        return "length" if len(one.written) == one.params.max_tokens else None


@contextmanager
def install(monkeypatch: Any) -> Any:
    """Give `import vllm` these classes inside the block; yield the engines that are made."""
    package, params = types.ModuleType("vllm"), types.ModuleType("vllm.sampling_params")
    package.__spec__ = ModuleSpec("vllm", None)
    package.LLMEngine, package.EngineArgs = LLMEngine, EngineArgs  # type: ignore[attr-defined]
    package.SamplingParams = SamplingParams  # type: ignore[attr-defined]
    errors = types.ModuleType("vllm.v1.engine.exceptions")
    errors.EngineDeadError = EngineDeadError  # type: ignore[attr-defined]
    params.StructuredOutputsParams = StructuredOutputsParams  # type: ignore[attr-defined]
    LLMEngine.made = []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vllm", package)
        patch.setitem(sys.modules, "vllm.sampling_params", params)
        patch.setitem(sys.modules, "vllm.v1.engine.exceptions", errors)
        yield LLMEngine.made
