"""Texts of recordings that Whisper hears, as many of their windows at once as pay.

transformers' own `generate` cuts a recording into windows, reads their timestamps and decides what
comes next, in a thread for each recording. Here, its encoder and its search take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import torch
from pipemill.actors.faults.blame import is_out_of_memory, is_row_error
from pipemill.actors.faults.watchdog import hold, share_stage
from transformers import WhisperForConditionalGeneration

from ..base import GenerationEngine, Prompt, Values
from ..generation.batched_generation import is_harmless
from ..generation.continuous_generation import OTHER_LOOPS
from ..generation.hypotheses import Hypotheses, SearchRules
from ..gpu_memory import find_free_bytes
from ..onednn.linears import CLOSE
from ..onednn.speech_layers import use_faster_layers
from ..stacking import copy_kwargs
from .score_rules import simplify
from .window_decoder import Window, WindowDecoder
from .window_loop import WindowLoop

# Texts that are written at once: more of them cost a step as much for each.
_MOST_TEXTS, _MOST_WINDOWS = 96, 32
# The memory of their keys and values: so many bytes, or a share of what a GPU has left.
_CACHE_BYTES = 2 * 2**30
_CACHE_SHARE = 0.5
# What the decoder is tried with.
_TRIED_STEPS, _TRIED_POSITIONS = 4, 8
# Settings with which `generate` returns more than tokens, or computes them again.
_OTHER_SEARCHES = (
    *OTHER_LOOPS, "num_return_sequences",
    "diversity_penalty", "stop_strings", "max_time", "cache_implementation",
    "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold",
    "return_token_timestamps",
)  # fmt: skip
# Stopping criteria that `SearchRules` follows.
_FOLLOWED = ("MaxLengthCriteria", "EosTokenCriteria")


class UnsupportedSearch(TypeError):
    """Settings whose texts can't be searched here."""


class SpeechGeneration(GenerationEngine):
    """Generates with a pipeline's own Whisper model."""

    is_exact = True

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.decoder = WindowDecoder(pipeline.model)
        self.loop = WindowLoop(self.decoder)
        # Of all calls: how many recordings are written down at once.
        self._most = _MOST_WINDOWS
        self._rooms = threading.Semaphore(self._most)
        # Of the thread's recording: what the encoder got and returned last, and whether it is
        # given up.
        self._heard = threading.local()
        encoder = pipeline.model.get_encoder()
        self._encode_usually = encoder.forward
        encoder.forward = wraps(encoder.forward)(
            lambda *given, **more: self._encode(*given, **more)
        )

    def schedules(self, keywords: Values) -> bool:
        settings = self._merge_settings(keywords)
        others = [(name, settings.get(name)) for name in _OTHER_SEARCHES]
        plain = all(value is not True and is_harmless(name, value) for name, value in others)
        # Whisper draws by chance at any other temperature, and may draw again at several.
        return (
            plain
            and keywords.get("temperature") in (None, 0)
            and keywords.get("return_timestamps") != "word"
            and settings.get("use_cache") is not False
        )

    def samples(self, keywords: Values) -> bool:
        return True  # or does something else that one recording at a time does

    def can_pad(self, keywords: Values) -> bool:
        return False

    def generate(self, prompts: list[Values], keywords: Values) -> list[Values]:
        return [self.pipeline.forward(one, **copy_kwargs(keywords)) for one in prompts]

    def write_all(self, prompts: list[Prompt], most: int | None = None) -> list[Values | Exception]:
        if not prompts:
            return []
        rooms = self._count_rooms(prompts[0].keywords)
        # The longest first: their windows follow one another.
        order = sorted(range(len(prompts)), key=lambda i: -_count_frames(prompts[i]))
        outputs: list[Any] = [None] * len(prompts)
        ended: list[BaseException] = []
        count = min(len(prompts), rooms, most or rooms)
        threads = ThreadPoolExecutor(count, initializer=share_stage())
        try:
            several = threads.map(lambda i: self._write(prompts[i], ended), order)
            for i, output in zip(order, several, strict=True):
                outputs[i] = output
        except BaseException as error:
            ended.append(error)
            self.loop.end(error)
            raise
        finally:
            threads.shutdown(cancel_futures=True)
        failed = [i for i in order if _ran_out_of_memory(outputs[i])]
        if failed and rooms > 1:
            self._most = min(self._most, rooms // 2)
            self._rooms = threading.Semaphore(self._most)
            for i, output in zip(failed, self.write_all([prompts[i] for i in failed]), strict=True):
                outputs[i] = output
        return outputs

    def _write(self, prompt: Prompt, ended: list[BaseException]) -> Values | Exception:
        """Return what `_forward` returns for a recording. Raise an error that is not the row's.

        ended: gets the error for which all recordings of the call are given up.
        """
        with hold(self._rooms):
            try:
                return self._forward(prompt, ended)
            except BaseException as error:
                if not (isinstance(error, Exception) and is_row_error(error)):
                    raise
                return error

    def _forward(self, prompt: Prompt, ended: list[BaseException]) -> Values:
        keywords = copy_kwargs(prompt.keywords)
        self._heard.last, self._heard.ended = (None, None), ended
        try:
            return self.pipeline.forward(prompt.inputs, custom_generate=self._search, **keywords)
        except UnsupportedSearch:
            return self._compute(lambda: self._forward_alone(prompt))
        finally:
            vars(self._heard).clear()

    def _forward_alone(self, prompt: Prompt) -> Values:
        """Return the same, with transformers' own search."""
        # This thread computes now, maybe in the middle of its own recording.
        kept = dict(vars(self._heard))
        vars(self._heard).clear()
        try:
            return self.pipeline.forward(prompt.inputs, **copy_kwargs(prompt.keywords))
        finally:
            vars(self._heard).update(kept)

    def _encode(self, input_features: Any, *given: Any, **more: Any) -> Any:
        """Stand in for the encoder's `forward`: in a recording's thread, wait for a turn."""
        if not hasattr(self._heard, "last"):
            return self._encode_usually(input_features, *given, **more)
        # What tells the language hears the first window, too.
        features, output = self._heard.last
        if features is None or not torch.equal(features, input_features):
            output = self._compute(lambda: self._encode_usually(input_features, *given, **more))
            self._heard.last = input_features, output
        return output

    def _search(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **prepared: Any,
    ) -> torch.Tensor:
        """Stand in for the search of `generate`: write one window down."""
        others = [one for one in stopping_criteria if type(one).__name__ not in _FOLLOWED]
        mask = prepared.get("decoder_attention_mask")
        if others or not (mask is None or mask.all()):
            raise UnsupportedSearch
        ends = getattr(generation_config, "_eos_token_tensor", None)
        rules = SearchRules(
            processors=list(map(simplify, logits_processor)),
            ends=frozenset([] if ends is None else ends.flatten().tolist()),
            most=generation_config.max_length - input_ids.shape[1],
            beams=generation_config.num_beams,
            length_penalty=generation_config.length_penalty,
            early_stopping=generation_config.early_stopping,
        )
        states = prepared["encoder_outputs"][0][:1]
        window = Window(states, Hypotheses(input_ids[0].tolist(), rules))
        self._check_goes_on()
        self.loop.write(window)
        return torch.tensor([window.hypotheses.best], device=input_ids.device)

    def _compute(self, run: Callable[[], Any]) -> Any:
        self._check_goes_on()
        return self.loop.compute(run)

    def _check_goes_on(self) -> None:
        if self._heard.ended:
            raise self._heard.ended[0]

    def _merge_settings(self, keywords: Values) -> Values:
        """Return what the call says, over what the model and the pipeline generate with."""
        given = self.pipeline._get_set_generation_params(dict(keywords))
        return {**self.pipeline._generation_defaults, **given}

    def _count_rooms(self, keywords: Values) -> int:
        """Return how many recordings one call writes down at once."""
        beams = self._merge_settings(keywords).get("num_beams") or 1
        device = self.pipeline.device
        memory: float = _CACHE_BYTES
        if device.type == "cuda":
            memory = find_free_bytes(device) * _CACHE_SHARE
        fits = int(memory / self.decoder.window_bytes(beams))
        return max(min(fits, _MOST_TEXTS // beams, self._most), 1)


def make_speech_generation(pipeline: Any) -> SpeechGeneration | None:
    """Return what writes several recordings at once; None for a model that it is not right for."""
    if type(pipeline.model) is not WhisperForConditionalGeneration:
        return None
    if pipeline.device.type == "meta" or not _is_right(pipeline.model):
        return None
    use_faster_layers(pipeline.model)
    return SpeechGeneration(pipeline)


def _is_right(model: Any) -> bool:
    """Tell whether the decoder gives what the model gives, for some steps of a search."""
    seen = []

    def note(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((ids, scores))
        return scores

    rules = SearchRules(processors=[note], ends=frozenset(), most=_TRIED_STEPS, beams=2)
    random = torch.Generator().manual_seed(0)
    shape = 1, _TRIED_POSITIONS, model.config.d_model
    states = torch.randn(shape, generator=random).to(model.device, model.dtype)
    window = Window(states, Hypotheses([model.config.decoder_start_token_id, 0], rules))
    decoder = WindowDecoder(model)
    try:
        with torch.no_grad():
            decoder.begin(window)
            while not window.is_done:
                decoder.step([window])
            return all(_are_close(model, states, *one) for one in seen)
    except Exception:
        return False


def _are_close(model: Any, states: Any, ids: torch.Tensor, scores: torch.Tensor) -> bool:
    several = states.expand(len(ids), -1, -1)
    logits = model(encoder_outputs=(several,), decoder_input_ids=ids).logits[:, -1].float()
    usual = torch.log_softmax(logits, dim=-1)
    close = CLOSE["float32" if model.dtype.itemsize == 4 else "bfloat16"]
    return bool((usual - scores).norm() <= close * usual.norm())


def _ran_out_of_memory(output: Values | Exception) -> bool:
    return isinstance(output, Exception) and is_out_of_memory(output)


def _count_frames(prompt: Prompt) -> int:
    features = prompt.inputs.get("input_features")
    return 0 if features is None else int(features.shape[-1])
