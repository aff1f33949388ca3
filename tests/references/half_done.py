"""The jobs whose half-done outputs lie in `outputs/`, by name.

Their inputs are in fsspec's memory, under the names and dates that the outputs' plans have.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OUTPUTS = Path(__file__).parent / "outputs"
INPUT = "memory://half-done"
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)

# What is the job's own, and what another attempt at its dead letters changes.
JOBS: dict[str, dict[str, Any]] = {
    "text": {
        "task": "text-classification",
        "input": {"path": f"{INPUT}/text/*.jsonl", "columns": {"text_pair": "other"}},
        "parameters": {"stride": 2},
    },
    "zero-shot": {
        "task": "zero-shot-classification",
        "input": {"path": f"{INPUT}/zero-shot", "columns": {"candidate_labels": "tags"}},
        "parameters": {"hypothesis_template": "This of the river and a stone is {}."},
    },
    "image": {
        "task": "image-classification",
        "input": {"path": f"{INPUT}/image/*.parquet", "columns": {"image": "url"}},
        "parameters": {"top_k": 2},
    },
}
# Settings with which one of the dead rows has an answer.
RETRIES: dict[str, dict[str, Any]] = {
    "text": {"truncation": True},
    "zero-shot": {"hypothesis_template": "{}"},
    "image": {},
}
MISSING = "5.png"  # when the job was run


def job(name: str, home: Path) -> dict[str, Any]:
    """Return the job's settings. home: the folder of the models and outputs."""
    return {
        **JOBS[name],
        "model": str(home / "models" / ("image" if name == "image" else "text")),
        "output": {"path": str(home / name), "rows_per_part": 4},
        "actors": {"placement": "local"},
    }


def load_input(name: str, missing: tuple[str, ...] = ()) -> None:
    """Put a job's input where its plan says that it lies. missing: names of files to leave out."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in sorted((OUTPUTS / name / "input").iterdir()):
        if file.name not in missing:
            path = f"/half-done/{name}/{file.name}"
            memory.pipe_file(path, file.read_bytes())
            memory.store[path].created = memory.store[path].modified = WRITTEN


def write_inputs() -> None:
    """Write the inputs: 16 rows each, two of which can't have an answer as the job is written."""
    import io
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    words = "the river is cold and a stone wheel of the mill was green".split()
    texts = [" ".join(words[: 1 + 5 * n % 13]) + f" {n}" for n in range(16)]
    long = " ".join(words * 3)
    texts[9] = long
    others = ["bread" if n % 3 else None for n in range(16)]
    others[5] = long  # leaves no room for a window of the first, unless it is cut itself
    pairs = enumerate(zip(texts, others, strict=True))
    rows = [{"n": n, "text": t, "other": o} for n, (t, o) in pairs]
    lines = [json.dumps(row) for row in rows]
    lines[6] = "{"
    _file("text", "rows.jsonl").write_text("\n".join(lines) + "\n")

    tags = [["bread", "river", "a cold day"][: 1 + n % 3] for n in range(16)]
    tags[5] = ["river", " ".join(words[:5])]  # too long beside the template
    texts[6] = ""
    table = pa.table({"n": range(16), "text": texts, "tags": tags})
    pq.write_table(table, _file("zero-shot", "rows.parquet"), compression="zstd")

    for n in range(16):
        image = Image.frombytes(
            "RGB", (8, 8), bytes((n * 37 + i * (n + 3)) % 256 for i in range(192))
        )
        stream = io.BytesIO()
        image.save(stream, "PNG")
        _file("image", f"{n}.png").write_bytes(b"no image" if n == 6 else stream.getvalue())
    urls = [f"{INPUT}/image/{n}.png" for n in range(16)]
    pq.write_table(pa.table({"n": range(16), "url": urls}), _file("image", "rows.parquet"))


def _file(name: str, file: str) -> Path:
    folder = OUTPUTS / name / "input"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / file
