"""Hold the floors of `floors.yaml`: ratios to transformers that must not become smaller.

    python -m benchmarks.floors [--only classification] [--json floors.json]

Prints each ratio with its floor and the versions, and exits with 1 if one is below its floor.
CPU seconds of one thread are compared, which other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

FLOORS = Path(__file__).with_suffix(".yaml")
# Texts and recordings, of which each takes a second and more.
_WITH_BEAMS, _RECORDINGS = 8, 6
VERSIONS = ("pipemill", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


def measure_classification() -> Iterator[tuple[str, float]]:
    from . import limit

    seconds = limit.measure(160, 2, clock=time.process_time)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    yield "beside transformers at batch_size=1", middle[limit.PEER] / middle[limit.OURS]
    yield "share of its own forward pass", middle[limit.LIMIT] / middle[limit.OURS]


def measure_images(name: str) -> Iterator[tuple[str, float]]:
    from .images import __main__ as images

    with tempfile.TemporaryDirectory() as folder:
        model, rows = Path(folder, "model"), Path(folder, "rows.parquet")
        images.write_model(model, name)
        photos = [images.make_photo(seed) for seed in range(24)]
        pq.write_table(pa.table({"image": photos}), rows)
        busy = images.measure(str(model), rows, 2, 1, (1, 8), ()).busy
    best = min(min(taken) for way, taken in busy.items() if way.startswith("transformers"))
    yield "beside transformers at its best batch size", best / min(busy["pipemill, float32"])


def measure_texts(name: str) -> Iterator[tuple[str, float]]:
    import pipemill

    from . import generation

    pipemill.restore_pipelines()
    found = generation.compare(name, 96, 1)
    if found["equal_texts"]["pipemill"] < 96:
        raise SystemExit(f"{name}: texts differ from those of transformers: {found}")
    yield "beside transformers at its best batch size", found["ratio"]


def measure_beams(name: str) -> Iterator[tuple[str, float]]:
    import pipemill

    from . import generation

    pipemill.restore_pipelines()
    found = generation.compare(name, _WITH_BEAMS, 1, (1, _WITH_BEAMS))
    # A near tie of two beams may be decided by how sums are rounded: see docs/speed.md.
    if found["equal_texts"]["pipemill"] < _WITH_BEAMS - 1:
        raise SystemExit(f"{name}: texts differ from those of transformers: {found}")
    yield "beside transformers at its best batch size", found["ratio"]


def measure_speech(way: str) -> Iterator[tuple[str, float]]:
    from .speech import __main__ as speech

    sounds = speech.make_sounds(_RECORDINGS)
    pipelines = speech.make_pipeline(), speech.make_pipeline()
    found = speech.compare(way, pipelines, sounds, [1, _RECORDINGS], 1)
    if found["equal_answers"]["pipemill"] < _RECORDINGS:
        raise SystemExit(f"speech, {way}: answers differ from those of transformers: {found}")
    yield "beside transformers at its best batch size", found["ratio"]


def measure_task(work: str) -> Iterator[tuple[str, float]]:
    from . import text_tasks

    yield "beside transformers at batch_size=1", text_tasks.measure(work, 2)


MEASURES = {
    "classification": measure_classification,
    "embeddings": lambda: measure_task("embeddings"),
    "zero-shot": lambda: measure_task("zero-shot"),
    "long questions": lambda: measure_task("long questions"),
    "ViT-S": lambda: measure_images("vit-s"),
    "ResNet-50": lambda: measure_images("resnet-50"),
    "decoder": lambda: measure_texts("decoder"),
    "t5": lambda: measure_texts("t5"),
    "marian": lambda: measure_texts("marian"),
    "t5 with beams": lambda: measure_beams("t5-beams"),
    "marian with beams": lambda: measure_beams("marian-beams"),
    "speech with beams": lambda: measure_speech("long"),
    "greedy speech": lambda: measure_speech("chunks, greedy"),
}


def compare(only: str | None) -> Iterator[tuple[str, float, Mapping[str, float]]]:
    """Yield the name of each ratio, the ratio, and its floor."""
    floors = yaml.safe_load(FLOORS.read_text())
    for name, measure in MEASURES.items():
        if only is None or name in only.split(","):
            for what, ratio in measure():
                yield f"{name}, {what}", ratio, floors[f"{name}, {what}"]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help=f"some of {', '.join(MEASURES)}, with commas between them")
    parser.add_argument("--json", help="a file for the ratios and the versions")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    versions = {name: version(name) for name in VERSIONS}
    print(", ".join(f"{name} {number}" for name, number in versions.items()), platform.machine())
    ratios, below = {}, 0
    for name, ratio, floor in compare(options.only):
        is_below = ratio < floor["least"]
        below += is_below
        ratios[name] = round(ratio, 3)
        told = "BELOW its floor" if is_below else "floor"
        print(f"{name}: {ratio:.2f}, {told} {floor['least']} (seen {floor['seen']})", flush=True)
        if options.json:  # as it goes: a run may be cut off
            Path(options.json).write_text(json.dumps({"versions": versions, "ratios": ratios}))
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
