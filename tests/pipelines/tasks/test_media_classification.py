"""The labels of an image without a dictionary for each label: exactly the pipeline's answer."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

pytest.importorskip("PIL")

from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.tasks.media_classification import rank_labels

from tests.support import made_media

TASK = "image-classification"


@pytest.fixture
def stages(models):
    model = Model(path=models[TASK])
    return LoadTask(task=TASK, model=model, columns=(("image", "image"),), max_tokens=1)()


@pytest.mark.parametrize(
    "kind", [None, "regression", "multi_label_classification", "single_label_classification"]
)
@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_labels_are_the_pipelines(stages, monkeypatch, kind, function):
    pipeline = stages.task.pipeline
    monkeypatch.setattr(pipeline.model.config, "problem_type", kind)
    logits = torch.tensor([[1.0, 3.0, -2.0, 3.0, 1.0, 0.5, -2.0]])  # equal ones keep their order
    for top_k in (1, 4, 7, 50, 0, -1):
        _, _, after = pipeline._sanitize_parameters(top_k=top_k, function_to_apply=function)
        output = {"logits": logits}
        assert rank_labels(pipeline, output, **after) == pipeline.postprocess(output, **after)
    logits[0, 3] = float("nan")
    ranked, usual = rank_labels(pipeline, output), pipeline.postprocess(output)
    assert [one["label"] for one in ranked] == [one["label"] for one in usual]


def _label(stages):
    files = [made_media.png(made_media.picture(40, 30, seed)) for seed in range(9)]
    batch = stages.process(Batch(pa.table({"image": files})))
    assert not batch.failures
    return batch.results["labels"].to_pylist()


def test_after_a_few_equal_answers_the_task_ranks(stages):
    expected = _label(stages)
    seen = []

    def ranked(pipeline, output, **keywords):
        seen.append(output)
        return rank_labels(pipeline, output, **keywords)

    stages.task.forwards.own_postprocess = ranked
    stages.task.pipeline.postprocess = None
    assert _label(stages) == expected
    assert len(seen) == 9


def test_another_answer_than_the_pipelines_is_not_used(stages):
    expected = _label(stages)
    assert len(set(map(tuple, expected))) > 1
    forwards = stages.task.forwards
    forwards.compared, forwards.own_postprocess = 0, lambda pipeline, output, **keywords: []
    assert _label(stages) == expected
    assert forwards.own_postprocess is None


def test_images_that_fail_cost_no_second_preprocessing_of_the_others(stages, monkeypatch):
    files = [made_media.png(made_media.picture(40, 30, seed)) for seed in range(40)]
    good = stages.process(Batch(pa.table({"image": files}))).results["labels"].to_pylist()
    bad = (3, 17, 18, 39)
    for row in bad:
        files[row] = files[row][:200]
    levels = stages.task.levels.pipeline
    read, preprocess = [], levels.preprocess

    def preprocessed(image, **keywords):
        read.append(image)
        return preprocess(image, **keywords)

    monkeypatch.setattr(levels, "preprocess", preprocessed, raising=False)
    batch = stages.process(Batch(pa.table({"image": files})))
    assert sorted(batch.failures) == list(bad)
    assert {failure.stage for failure in batch.failures.values()} == {"expand"}
    labels = batch.results["labels"].to_pylist()
    assert labels == [None if row in bad else own for row, own in enumerate(good)]
    assert len(read) == 36
