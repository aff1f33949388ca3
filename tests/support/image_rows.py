"""Rows with media through a task, in every way, against plain `transformers.pipeline`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
from PIL import Image
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import MediaAccess
from pipemill.pipelines.registry import find_task
from pipemill.pipelines.restored import restore_pipelines

from tests.support import made_media

# The budget of a micro-batch, and how the rows give their media.
WAYS = [(1, "path"), (1_000_000, "struct")]
BROKEN = 2  # the row whose file is cut off


def column(files, form, folder):
    """Media as bytes, as absolute paths, or as structs of either."""
    if form == "bytes":
        return pa.array(files, pa.binary())
    paths = [folder / f"{i}.media" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    if form == "path":
        return pa.array(map(str, paths))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [
        {"bytes": None, "path": path.name} if i % 2 else {"bytes": data, "path": "gone"}
        for i, (path, data) in enumerate(zip(paths, files, strict=True))
    ]
    return pa.array(values, kind)


@lru_cache(maxsize=64)
def loaded(wanted):
    return wanted()


def answers(task, model, rows, parameters, budget, folder):
    """The batch, done in one process and staged (but where that can't be); the loaded task."""
    wanted = {
        "task": task,
        "model": Model(path=model),
        "columns": tuple((name, f"my_{name}") for name in rows.column_names),
        "parameters": json.dumps(parameters),
        "max_tokens": budget,
        "media": MediaAccess(roots=(str(folder),)),
    }
    rows = rows.rename_columns([f"my_{name}" for name in rows.column_names])
    full = LoadTask(**wanted)()
    batches = [full.process(Batch(rows))]
    if not find_task(task).expands_with_model:
        light = loaded(LoadTask(**wanted, weights=False))
        staged = Batch.from_bytes(light.expand(Batch(rows)).to_bytes())
        staged = Batch.from_bytes(full.forward(staged).to_bytes())
        batches.append(light.regroup(staged))
        assert batches[0].failures == batches[1].failures
    return batches, full.task


@lru_cache(maxsize=32)
def plain(task, model):
    restore_pipelines()
    return transformers.pipeline(task, model=model, device="cpu")


def with_one_broken(files):
    """The files with one more, at `BROKEN`, of which only the beginning is there."""
    return [*files[:BROKEN], files[0][:60], *files[BROKEN:]]


def check(task, model, files, expected, folder, *, budget, form, parameters=None, own=None,
          media="image", more=None):  # fmt: skip
    """Each row's results equal the expected ones; the broken file alone is a dead letter.

    own: columns of a row's own parameters. more: further columns, of media.
    Returns the loaded task.
    """
    columns = {media: column(with_one_broken(files), form, folder)}
    for name, values in {**(own or {}), **(more or {})}.items():
        columns[name] = pa.array([*values[:BROKEN], values[0], *values[BROKEN:]])
    batches, kind = answers(task, model, pa.table(columns), parameters or {}, budget, folder)
    for batch in batches:
        failures = {row: failure.stage for row, failure in batch.failures.items()}
        assert failures == {BROKEN: "expand"}, batch.failures
        got = batch.results.to_pylist()
        assert set(got.pop(BROKEN).values()) == {None}
        assert_same(got, expected)
    different = {repr(one) for one in got}
    assert len(different) > len(files) * 0.7, "answers must differ to show a swapped one"
    return kind


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@dataclass(frozen=True)
class Near:
    """A picture of numbers that are equal but for rounding: a pixel may be one level off."""

    image: Any


def assert_same(got, expected):
    """Numbers within 1e-4, pictures pixel by pixel, all else exactly."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            assert_same(got[key], expected[key])
    elif isinstance(expected, Near):
        levels = np.asarray(expected.image).astype(int)
        assert np.abs(pixels(got).astype(int) - levels).max() <= 1
    elif isinstance(expected, Image.Image):
        assert np.array_equal(pixels(got), np.asarray(expected))
    elif isinstance(expected, np.ndarray):
        if expected.dtype == bool:
            assert np.array_equal(pixels(got), expected)
        else:
            np.testing.assert_allclose(np.array(got), expected, atol=1e-4, rtol=1e-4)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float | np.floating):
        assert got == pytest.approx(float(expected), abs=1e-4, rel=1e-4)
    else:
        assert got == expected


@lru_cache(maxsize=8)
def pictures(count=8):
    return tuple(made_media.pictures(count))


@lru_cache(maxsize=8)
def files(count=8):
    return tuple(made_media.png(image) for image in pictures(count))
