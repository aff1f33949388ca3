"""A model that answers no row at all stops its job at the first rows."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pipemill.actors.batch import Batch
from pipemill.actors.faults.load_errors import LoadError
from pipemill.pipelines.dummy_rows import make_dummy_rows
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.registry import find_task

import pipemill
from pipemill.errors import ModelError
from tests.support.image_rows import files

ANSWERED = (
    "automatic-speech-recognition feature-extraction fill-mask image-classification "
    "keypoint-matching table-question-answering text-classification text-generation "
    "text-to-audio token-classification video-classification visual-question-answering "
    "zero-shot-audio-classification zero-shot-classification zero-shot-object-detection"
).split()


def load(task, model, weights=True, names=None):
    inputs = find_task(task).inputs
    names = names or [c.name for c in inputs if c.required or not c.parameter]
    columns = tuple((name, name) for name in names)
    return LoadTask(task=task, model=Model(path=str(model)), columns=columns, weights=weights)()


@pytest.fixture
def of_another_size(models, tmp_path):
    """An image classifier whose processor makes images of another size than its weights take."""
    folder = shutil.copytree(models["image-classification"], tmp_path / "model")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 50, "width": 50}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("task", ANSWERED)
def test_a_model_that_works_answers_dummy_rows(models, task):
    names = ["text"] if task == "text-to-audio" else None  # this model reads no chats
    stages = load(task, models[task], names=names)
    batch = stages.process(Batch(stages.trial.make(list(stages.columns.values()))))
    assert batch.rows.num_rows == 2
    assert not batch.failures


def test_a_model_that_answers_no_row_is_refused_at_the_first_rows(of_another_size, tmp_path):
    rows = [{"image": b"none"}, *({"image": file} for file in files(2))]
    with pytest.raises(ModelError, match="the first 2 rows fail, and made-up ones.*50\\*50.*model"):
        pipemill.run(
            task="image-classification",
            model=str(of_another_size),
            input=rows,
            output=str(tmp_path / "out"),
            actors={"placement": "local"},
        )
    assert not list(Path(tmp_path / "out").glob("*.parquet"))


def test_each_step_refuses_it_where_steps_run_in_several_processes(of_another_size):
    rows = Batch(pa.table({"image": [*files(2)]}))
    expanded = load("image-classification", of_another_size, weights=False).expand(rows)
    assert not expanded.failures
    with pytest.raises(LoadError, match="doesn't match model"):
        load("image-classification", of_another_size).forward(expanded)


def test_rows_that_fail_by_themselves_do_not_stop_the_job(models):
    stages = load("image-classification", models["image-classification"])
    batch = stages.process(Batch(pa.table({"image": [b"none", b"", None]})))
    assert len(batch.failures) == 3
    assert not stages.trial.passed
    stages.process(Batch(pa.table({"image": list(files(1))})))
    assert stages.trial.passed == {"expand", "forward", "regroup"}


@pytest.mark.parametrize(
    "task", ["image-classification", "text-generation", "table-question-answering"]
)
def test_rows_that_hold_nothing_do_not_stop_the_job(models, task):
    stages = load(task, models[task])
    batch = stages.process(Batch(pa.table({name: pa.nulls(2) for name in stages.columns})))
    assert len(batch.failures) == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError(28, "No space left on device"),
        TimeoutError("the Hub does not answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_does_not_stop_the_job(models, error):
    stages = load("image-classification", models["image-classification"])

    def forward(*given, **named):
        raise error

    stages.task.pipeline.model.forward = forward
    batch = stages.process(Batch(pa.table({"image": list(files(2))})))
    assert {failure.stage for failure in batch.failures.values()} == {"forward"}


def test_rows_that_are_too_small_do_not_stop_the_job(models):
    stages = load("image-classification", models["image-classification"])
    usual = stages.task.expand_each

    def expand_each(inputs):
        for data in inputs["image"].to_pylist():
            if (least := min(Image.open(io.BytesIO(data)).size)) < 224:
                raise ValueError(f"{least} pixels are fewer than 224")
        return usual(inputs)

    stages.task.expand_each = expand_each
    assert len(stages.process(Batch(pa.table({"image": [*files(1)] * 2}))).failures) == 2


@pytest.mark.parametrize(
    ("task", "columns", "given"),
    [
        ("translation", ["text", "src_lang"], ["text", "src_lang"]),
        ("text-generation", ["text", "messages"], ["messages"]),  # later rows may have a text
        ("document-question-answering", ["image", "question"], ["image", "question"]),
    ],
)
def test_no_rows_are_made_that_a_model_may_not_take(task, columns, given):
    columns = {name: name for name in columns}
    assert not make_dummy_rows(find_task(task), None, columns, given).num_rows


def test_texts_in_another_script_than_the_models_do_not_stop_the_job(models, tmp_path):
    folder = shutil.copytree(models["text-to-audio"], tmp_path / "model")
    numbers = json.loads((folder / "vocab.json").read_text())
    letters = {chr(ord("अ") + ord(c) - ord("a")): n for c, n in numbers.items() if c.isalpha()}
    others = {piece: n for piece, n in numbers.items() if not piece.isalpha()}
    (folder / "vocab.json").write_text(json.dumps({**others, **letters}))
    stages = load("text-to-audio", folder, names=["text"])
    assert len(stages.process(Batch(pa.table({"text": ["the mill"]}))).failures) == 1
    assert not stages.process(Batch(pa.table({"text": ["अआइ"]}))).failures


def test_rows_that_an_earlier_step_lost_hide_no_model_that_fails(of_another_size):
    rows = [b"none"] * 3 + [*files(1)]
    with pytest.raises(LoadError, match="the first row fails.*doesn't match model"):
        load("image-classification", of_another_size).process(Batch(pa.table({"image": rows})))


def test_settings_of_a_model_that_fail_for_every_text_are_refused(models, tmp_path):
    folder = shutil.copytree(models["text-generation"], tmp_path / "model")
    settings = {"do_sample": True, "temperature": 0.0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(LoadError, match="text-generation: the first row fails.*strictly positive"):
        load("text-generation", folder, names=["text"]).process(
            Batch(pa.table({"text": ["the mill"]}))
        )


def test_a_token_beyond_the_embedding_table_costs_its_row_before_the_model_gets_it(
    models, tmp_path
):
    folder = shutil.copytree(models["text-generation"], tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["z"] = 1000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    rows = pa.table({"text": ["the mill", "z"], "messages": pa.nulls(2)})
    batch = load("text-generation", folder).process(Batch(rows))
    assert {row: failure.stage for row, failure in batch.failures.items()} == {1: "expand"}
    assert "the token id 1000, beyond the model's embedding table" in batch.failures[1].message
