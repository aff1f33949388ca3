"""Models as they are loaded: with weights, or without where only tokens and answers are made."""

from __future__ import annotations

import pytest
from pipemill.pipelines.loading.model import Model


@pytest.mark.parametrize("task", ["text-classification", "pair-classification"])
def test_a_user_pipeline_can_be_made_without_weights(models, task):
    model = Model(
        path=models["text-classification"],
        pipeline_class="tests.support.own_pipelines:PairPipeline",
    )
    pipeline = model.load_without_weights(task)
    assert type(pipeline.model).__name__ == "BertForSequenceClassification"
    assert pipeline.model.device.type == "meta"
