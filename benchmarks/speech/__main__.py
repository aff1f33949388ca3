"""Speech that is recognized, beside `transformers.pipeline` with its batches.

    python -m benchmarks.speech [--only long] [--rows 24] [--rounds 1]
    python -m benchmarks.speech --model FOLDER --sounds FOLDER

In one process on one thread, the models loaded, in CPU seconds; features are made within the time.
Without a folder: a Whisper of the tiny shape with random weights and an end token that comes, and
recordings of tones from 1 to 60 s. A folder of sounds has a text beside each, NAME.wav and
NAME.txt: then the rate of wrong words is told, too. All answers are compared with those of
the first batch size.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import time
import warnings
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.speech.speech_generation import make_speech_generation
from pipemill.pipelines.media import decode_audio

RATE = 16_000
SECONDS = (1, 60)
BATCHES = "1,8,16"
# What the pipeline is asked for. Unless a model says otherwise, it searches with 5 beams.
WAYS: dict[str, dict[str, Any]] = {
    "long": {"return_timestamps": True},
    "chunks": {"chunk_length_s": 30},
    "long, greedy": {"return_timestamps": True, "num_beams": 1},
    "chunks, greedy": {"chunk_length_s": 30, "num_beams": 1},
}


def make_pipeline(folder: str | None = None) -> Any:
    """Return a pipeline with the model of a folder, or one with random weights."""
    torch.manual_seed(5)
    if folder is None:
        return make_random_pipeline()
    return transformers.pipeline("automatic-speech-recognition", model=folder, device="cpu")


def make_random_pipeline(
    width: int = 384, encoder_layers: int = 4, decoder_layers: int = 4, mels: int = 80
) -> Any:
    """Return a pipeline with a model whose texts end after few or many tokens.

    Without arguments it has the shape of Whisper tiny.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = {letter: i for i, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = transformers.WhisperTokenizer(
        vocab={**letters, **{f"~{i}": i for i in range(256, 50_256)}, "<|endoftext|>": 50_256},
        merges=[],
        pad_token="<|endoftext|>",
    )
    names = ["startoftranscript", "notimestamps", *(f"{i * 0.02:.2f}" for i in range(1501))]
    tokenizer.add_tokens([f"<|{name}|>" for name in names], special_tokens=True)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=encoder_layers,
        decoder_layers=decoder_layers, encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
        num_mel_bins=mels, init_std=0.05, pad_token_id=50_256, bos_token_id=50_256,
        eos_token_id=50_256, decoder_start_token_id=50_257,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        _let_texts_end(model)
    model.generation_config = transformers.GenerationConfig(
        max_length=448, no_timestamps_token_id=50_258, max_initial_timestamp_index=50,
        forced_decoder_ids=[[1, 50_258]], return_timestamps=False, pad_token_id=50_256,
        bos_token_id=50_256, eos_token_id=50_256, decoder_start_token_id=50_257,
    )  # fmt: skip
    return transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=tokenizer,
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=mels), device="cpu",
    )  # fmt: skip


def _let_texts_end(model: Any) -> None:
    """Make the end token likelier with each place."""
    decoder = model.get_decoder()
    towards = torch.nn.functional.normalize(torch.randn(model.config.d_model), dim=0)
    places = torch.arange(len(decoder.embed_positions.weight))[:, None]
    decoder.embed_positions.weight += 0.2 * places * towards
    decoder.embed_tokens.weight[50_256] = 1.2 * towards


def make_sounds(count: int) -> list[tuple[bytes, str | None]]:
    """Return WAV files of gliding tones and noise."""
    chance = np.random.default_rng(3)
    files: list[tuple[bytes, str | None]] = []
    for _ in range(count):
        seconds = np.arange(int(chance.uniform(*SECONDS) * RATE)) / RATE
        low, high, beat = chance.uniform(80, 600), chance.uniform(600, 3000), chance.uniform(1, 4)
        tones = np.sin(low * 6.3 * seconds) + np.sin(high * 6.3 * seconds * (1 + seconds / 90))
        sound = 0.2 * tones * np.sin(6.3 * beat * seconds) ** 2
        sound += 0.02 * chance.standard_normal(len(seconds))
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((1, 2, RATE, 0, "NONE", ""))
            writer.writeframes((sound * 32_767).astype("<i2").tobytes())
        files.append((file.getvalue(), None))
    return files


def read_sounds(folder: Path) -> list[tuple[bytes, str | None]]:
    files = sorted(folder.glob("*.wav"))
    return [(file.read_bytes(), file.with_suffix(".txt").read_text()) for file in files]


def run_ours(pipeline: Any, engine: Any, sounds: list[Any], settings: dict[str, Any]) -> list[Any]:
    before, during, after = pipeline._sanitize_parameters(**settings)
    assert engine.schedules(during)
    prompts, rows = [], []
    for row, sound in enumerate(sounds):
        for chunk in pipeline.preprocess(sound, **before):
            prompts.append(Prompt(inputs=chunk, keywords=during, settings="", seed=0))
            rows.append(row)
    outputs: list[list[Any]] = [[] for _ in sounds]
    for row, output in zip(rows, engine.write_all(prompts), strict=True):
        if isinstance(output, Exception):
            raise output
        outputs[row].append(output)
    return [pipeline.postprocess(several, **after) for several in outputs]


def compare(
    name: str,
    pipelines: tuple[Any, Any],
    files: list[tuple[bytes, str | None]],
    batches: list[int],
    rounds: int,
) -> dict[str, Any]:
    """Return the CPU seconds of each way, and how many of its answers are the right ones.

    pipelines: transformers' own, and one whose model gets faster layers.
    batches: the pipeline's batch sizes; the first one's answers are the right ones.
    """
    usual, faster = pipelines
    settings, engine = WAYS[name], make_speech_generation(faster)
    sounds = [decode_audio(file, RATE) for file, _ in files]
    ways: dict[str, Callable[[], list[Any]]] = {
        "pipemill": lambda: run_ours(faster, engine, sounds, settings)
    }
    for batch in batches:
        ways[f"batches of {batch}"] = lambda batch=batch: usual(
            sounds, batch_size=batch, **settings
        )  # type: ignore[misc]
    seconds: dict[str, list[float]] = {}
    answers: dict[str, list[Any]] = {}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.process_time()
            try:
                answers[way] = run()
            except RuntimeError as error:  # recordings of one and of several windows in a batch
                print(f"{name}: {way}: {str(error).splitlines()[0][:80]}", flush=True)
                continue
            seconds.setdefault(way, []).append(time.process_time() - start)
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    truth = answers[f"batches of {batches[0]}"]
    result = {
        "way": name,
        "recordings": len(sounds),
        "minutes": round(sum(map(len, sounds)) / RATE / 60, 1),
        "cpu_seconds": {way: round(each, 1) for way, each in medians.items()},
        "equal_answers": {
            way: sum(map(dict.__eq__, several, truth)) for way, several in answers.items()
        },
        "ratio": round(
            min(medians[way] for way in medians if way != "pipemill") / medians["pipemill"], 2
        ),
    }
    if files[0][1] is not None:
        texts = [str(text) for _, text in files]
        heard = [one["text"] for one in answers["pipemill"]]
        result["wrong_words"] = round(count_wrong_words(texts, heard), 3)
    return result


def count_wrong_words(texts: list[str], heard: list[str]) -> float:
    """Return the words to exchange, leave out and add, as a share of all words."""
    wrong = words = 0
    for text, other in zip(texts, heard, strict=True):
        right, given = (re.findall(r"[a-z0-9']+", one.lower()) for one in (text, other))
        costs = list(range(len(given) + 1))
        for row, word in enumerate(right, start=1):
            corner, costs[0] = costs[0], row
            for i, one in enumerate(given, start=1):
                corner, costs[i] = (
                    costs[i],
                    min(costs[i] + 1, costs[i - 1] + 1, corner + (word != one)),
                )
        wrong, words = wrong + costs[-1], words + len(right)
    return wrong / max(words, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"some of: {'; '.join(WAYS)} (with ; between them)")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batches", default=BATCHES, help="the pipeline's batch sizes")
    parser.add_argument("--model", help="a folder with a Whisper model")
    parser.add_argument("--sounds", type=Path, help="a folder of recordings with their texts")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    files = read_sounds(options.sounds) if options.sounds else make_sounds(options.rows)
    batches = list(map(int, options.batches.split(",")))
    for name in options.only.split(";") if options.only else WAYS:
        pipelines = make_pipeline(options.model), make_pipeline(options.model)
        found = compare(name, pipelines, files, batches, options.rounds)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
