"""Speech to text, and text to speech."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from ..loading.adapters.language_adapter import set_language
from ..pipeline_task import PipelineTask, Values, fixed
from .generation_parameters import (
    GENERATION,
    GENERATION_OF_SPEECH,
    check_against_model,
    check_generation,
)
from .text_generation import MESSAGES, TEXT, prepare_chat_or_text

if TYPE_CHECKING:
    from ..engines.base import GenerationEngine


def _returns_timestamps(loaded: Loaded) -> bool:
    config = getattr(loaded.pipeline.model, "generation_config", None)
    return bool(
        loaded.parameters.get("return_timestamps") or getattr(config, "return_timestamps", False)
    )


def _make_transcript_schema(loaded: Loaded) -> pa.Schema:
    language = loaded.parameters.get("return_language")
    columns = [("text", pa.string())]
    if _returns_timestamps(loaded) or language:
        fields = [("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
        fields += [("language", pa.string())] if language else []
        columns.append(("chunks", pa.list_(pa.struct(fields))))
    return pa.schema(columns)


def _to_transcript(answer: Any, values: Values) -> Values:
    chunks = []
    for chunk in answer.get("chunks", []):
        start, end = chunk.get("timestamp") or (None, None)
        language = chunk.get("language")
        chunks.append({"text": chunk["text"], "start": start, "end": end, "language": language})
    return {"text": answer["text"], "chunks": chunks}


def _check_parameters(values: Values) -> None:
    check_generation(values)
    chunk, (left, right) = values["chunk_length_s"], _resolve_strides(values)
    if chunk and left + right >= chunk:
        raise ValueError(
            f"stride_length_s ({values['stride_length_s']}) leaves nothing of a chunk: the strides "
            f"on the left and right, {left:g} s and {right:g} s, must together be less than "
            f"chunk_length_s ({chunk:g})"
        )


def _resolve_strides(values: Values) -> tuple[float, float]:
    """Return the seconds at the left and right of a chunk that its neighbours share."""
    stride = values["stride_length_s"]
    if stride is None:
        stride = (values["chunk_length_s"] or 0) / 6
    return (stride, stride) if isinstance(stride, int | float) else tuple(stride)


def _check_against_pipeline(values: Values, pipeline: Any) -> None:
    _check_reads_all(values, pipeline)
    check_against_model(values, pipeline)
    _check_language(values, pipeline.model)
    _check_chunks_advance(values, pipeline)


def _check_reads_all(values: Values, pipeline: Any) -> None:
    """Raise ValueError for a parameter that transformers would not read with this model."""
    model = type(pipeline.model).__name__
    generation = [n for n in GENERATION_OF_SPEECH if values.get(n) is not None and values[n] != {}]
    if generation and not pipeline.model.can_generate():
        raise ValueError(
            f"{', '.join(generation)} is for models that generate, and {model} does not: leave it "
            "out"
        )
    if values["decoder_kwargs"] and pipeline.type != "ctc_with_lm":
        raise ValueError(
            f"decoder_kwargs is for models with a language model (pyctcdecode), and {model} has "
            "none: leave it out"
        )


def _check_language(values: Values, model: Any) -> None:
    """Raise ValueError for a language that Whisper does not know."""
    languages = getattr(getattr(model, "generation_config", None), "lang_to_id", None)
    language = (values["generate_kwargs"] or {}).get("language") or values["language"]
    if not (languages and isinstance(language, str)):
        return
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    if f"<|{code}|>" not in languages and code not in languages:
        known = ", ".join(sorted(name.strip("<|>") for name in languages))
        raise ValueError(f"language must be one of {known}, not {language!r}")


def _check_chunks_advance(values: Values, pipeline: Any) -> None:
    """Raise ValueError for strides that leave nothing of a chunk once lengths are rounded.

    They are rounded to the length of audio that the model makes one output of.
    """
    seconds = values["chunk_length_s"]
    if not seconds:
        return
    rate, step = pipeline.feature_extractor.sampling_rate, pipeline._align_to
    chunk, left, right = (round(s * rate / step) for s in (seconds, *_resolve_strides(values)))
    if chunk - left - right < 1:
        raise ValueError(
            f"stride_length_s ({values['stride_length_s']}) leaves nothing of a chunk of "
            f"chunk_length_s ({seconds:g}): the model rounds both to steps of {step / rate:g} s; "
            "make the stride smaller or the chunk longer"
        )


def _make_generation(pipeline: Any) -> GenerationEngine | None:
    if not pipeline.model.can_generate():
        return None
    # Here: the driver imports this module without torch.
    from ..engines.generation.batched_generation import BatchedGeneration
    from ..engines.speech.speech_generation import make_speech_generation

    if pipeline.type == "seq2seq":
        return BatchedGeneration(pipeline, "tokens")
    # Transducers (Parakeet TDT) write some texts otherwise in a batch.
    return make_speech_generation(pipeline)


def _make_sound(pipeline: Any, given: Values) -> Any:
    """Return a second of sound, to try parameters with."""
    import numpy as np

    rate = int(pipeline.feature_extractor.sampling_rate)
    return np.sin(np.arange(rate) / 9).astype(np.float32)


_SECONDS = Parameter(0, "float", least=0)


def _make_prompt(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Make a tensor of the tokens that Whisper is to take for the text before: it takes no list."""
    made = _with_tensor(parameters)
    if made.get("generate_kwargs"):
        made["generate_kwargs"] = _with_tensor(made["generate_kwargs"])
    return made


def _with_tensor(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given.get("prompt_ids"), list):
        return dict(given)
    import torch

    return {**given, "prompt_ids": torch.tensor(given["prompt_ids"])}


AUTOMATIC_SPEECH_RECOGNITION = PipelineTask(
    name="automatic-speech-recognition",
    adds="text; with return_timestamps also chunks: a list of structs of text, start, end (s)",
    inputs=(Column(name="audio", kind="audio"),),
    parameters={
        "chunk_length_s": _SECONDS,
        "stride_length_s": Parameter(None, "float|list|null", least=0, each=_SECONDS, count=2),
        "return_timestamps": Parameter(None, "any", (None, False, True, "word", "char")),
        "return_language": Parameter(None, "bool|null"),
        "ignore_warning": Parameter(None, "bool|null"),
        "decoder_kwargs": Parameter(None, "dict|null"),
        "target_lang": Parameter(None, "str|null"),
        **GENERATION_OF_SPEECH,
    },
    results=_make_transcript_schema,
    record=_to_transcript,
    batchable=False,
    to_pipeline_parameters=_make_prompt,
    own_parameters=("target_lang",),
    generation=_make_generation,
    set_up=set_language,
    checks=_check_parameters,
    suits=_check_against_pipeline,
    sample=_make_sound,
)


def _to_wav_record(answer: Any, values: Values) -> Values:
    if answer["sampling_rate"] is None:  # FastSpeech2 with its vocoder: that is the spectrogram
        raise ValueError(
            "transformers gives no sampling rate for what this model answers: no sound"
        )
    from ..media import encode_wav

    return {
        "audio": encode_wav(answer["audio"], int(answer["sampling_rate"])),
        "sampling_rate": int(answer["sampling_rate"]),
    }


def _check_generates(values: Values, pipeline: Any) -> None:
    check_against_model(values, pipeline)
    if values["generate_kwargs"] and not pipeline.model.can_generate():
        raise ValueError(
            f"generate_kwargs is for models that generate, and {type(pipeline.model).__name__} "
            "does not: leave it out (forward_params goes to its forward pass)"
        )


def _make_speakers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Make tensors of the lists that say whose voice a text is spoken in: models take no lists."""
    made = dict(parameters)
    for name in ("forward_params", "generate_kwargs"):
        if isinstance(given := made.get(name), dict):
            made[name] = {k: _make_speaker(v) if _is_speaker(k, v) else v for k, v in given.items()}
    return made


def _is_speaker(name: str, value: Any) -> bool:
    return name.startswith("speaker_") and isinstance(value, list)


def _make_speaker(value: list[Any]) -> Any:
    import torch

    tensor = torch.tensor(value)
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.is_floating_point() else tensor


TEXT_TO_AUDIO = PipelineTask(
    name="text-to-audio",
    adds="audio: WAV; sampling_rate: Hz",
    inputs=(TEXT, MESSAGES),
    one_of=("text", "messages"),
    parameters={
        "preprocess_params": Parameter(None, "dict|null"),
        "forward_params": Parameter(None, "dict|null"),
        "generate_kwargs": GENERATION["generate_kwargs"],
        "processor_kwargs": Parameter(None, "dict|null"),
    },
    results=fixed(audio=pa.binary(), sampling_rate=pa.int32()),
    record=_to_wav_record,
    prepare=prepare_chat_or_text,
    to_pipeline_parameters=_make_speakers,
    batchable=False,
    checks=check_generation,
    suits=_check_generates,
    sample=lambda pipeline, given: "a",
)
