"""Speech to text, and text to speech."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pipemill.actors.task import Column, Loaded, Parameter

from .declared import PipelineTask, Values, fixed
from .generation_parameters import GENERATION


def _timestamps(loaded: Loaded) -> bool:
    of_model = getattr(loaded.pipeline.model, "generation_config", None)
    return bool(
        loaded.parameters.get("return_timestamps") or getattr(of_model, "return_timestamps", False)
    )


def _results(loaded: Loaded) -> pa.Schema:
    language = loaded.parameters.get("return_language")
    columns = [("text", pa.string())]
    if _timestamps(loaded) or language:
        place = [("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
        extra = [("language", pa.string())] if language else []
        columns.append(("chunks", pa.list_(pa.struct(place + extra))))
    return pa.schema(columns)


def _record(answer: Any, values: Values) -> Values:
    chunks = []
    for chunk in answer.get("chunks", []):
        start, end = chunk.get("timestamp") or (None, None)
        language = chunk.get("language")
        chunks.append({"text": chunk["text"], "start": start, "end": end, "language": language})
    return {"text": answer["text"], "chunks": chunks}


AUTOMATIC_SPEECH_RECOGNITION = PipelineTask(
    name="automatic-speech-recognition",
    adds="text; with return_timestamps also chunks: a list of structs of text, start, end (s)",
    inputs=(Column(name="audio", kind="audio"),),
    parameters={
        "chunk_length_s": Parameter(0, "float"),
        "stride_length_s": Parameter(None, "float|list|null"),
        "return_timestamps": Parameter(None, "any", (None, False, True, "word", "char")),
        "return_language": Parameter(None, "bool|null"),
        "ignore_warning": Parameter(None, "bool|null"),
        "decoder_kwargs": Parameter(None, "dict|null"),
        **GENERATION,
    },
    results=_results,
    record=_record,
    stacks=False,
)


def _sound(answer: Any, values: Values) -> Values:
    from .media import wav

    return {
        "audio": wav(answer["audio"], int(answer["sampling_rate"])),
        "sampling_rate": int(answer["sampling_rate"]),
    }


TEXT_TO_AUDIO = PipelineTask(
    name="text-to-audio",
    adds="audio: WAV; sampling_rate: Hz",
    inputs=(Column(name="text", kind="text"),),
    parameters={
        "preprocess_params": Parameter(None, "dict|null"),
        "forward_params": Parameter(None, "dict|null"),
        "generate_kwargs": Parameter(None, "dict|null"),
        "processor_kwargs": Parameter(None, "dict|null"),
    },
    results=fixed(audio=pa.binary(), sampling_rate=pa.int32()),
    record=_sound,
    stacks=False,
)
