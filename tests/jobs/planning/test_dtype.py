"""What a model's numbers are where the job leaves it open."""

from __future__ import annotations

import pytest
from pipemill.jobs.config.job import Job
from pipemill.jobs.planning.choose_engine import choose_dtype
from pipemill.pipelines.registry import find_task


def job(num_gpus, dtype="auto"):
    places = {"model": {"path": "m", "dtype": dtype}, "input": "i", "output": "o"}
    return Job(task="ner", actors={"num_gpus": num_gpus}, **places)


@pytest.mark.parametrize(
    ("task", "num_gpus", "dtype", "own", "wanted"),
    [
        ("text-classification", 1, "auto", False, "bfloat16"),
        ("object-detection", 0.5, "auto", False, "bfloat16"),
        ("text-classification", 0, "auto", False, "auto"),
        ("text-classification", 1, "float32", False, "float32"),
        ("depth-estimation", 1, "auto", False, "auto"),
        ("table-question-answering", 1, "auto", False, "auto"),
        ("text-classification", 1, "auto", True, "auto"),
    ],
)
def test_on_a_gpu_it_is_bfloat16_where_that_works(task, num_gpus, dtype, own, wanted):
    assert choose_dtype(job(num_gpus, dtype), find_task(task), own) == wanted
