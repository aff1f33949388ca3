"""From a job's parameters to those that its task is loaded with. No Ray."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.errors import ConfigError
from pipemill.jobs.prepare import look

import pipemill


@pytest.fixture
def planned(models, tmp_path):
    rows = pa.table({"text": ["a river"], "words": [["a", "river"]], "question": ["what"]})
    pq.write_table(rows, tmp_path / "rows.parquet")

    def plan(task, parameters, **columns):
        job = pipemill.Job(
            task=task,
            model=models["fill-mask" if task == "question-answering" else task],
            input={"path": str(tmp_path / "rows.parquet"), "columns": columns},
            output=str(tmp_path / "out"),
            parameters=parameters,
        )
        return look(job).load

    return plan


def taken(load):
    return json.loads(load.parameters)


def test_null_leaves_a_default_unless_it_means_something(planned):
    given = {"ignore_labels": None, "aggregation_strategy": None, "stride": None}
    assert taken(planned("token-classification", given)) == {"stride": None}
    given = dict.fromkeys(["doc_stride", "max_answer_len", "top_k", "align_to_words"])
    assert taken(planned("question-answering", given, context="text")) == {}
    given = {"top_k": None, "truncation": None, "stride": None}
    assert taken(planned("text-classification", given)) == {"top_k": None, "truncation": None}
    # Neither does it take the place of what some rows say.
    assert taken(planned("fill-mask", {"several_masks": None})) == {"several_masks": False}


def test_choices_are_known_in_any_case(planned):
    given = {"aggregation_strategy": "SIMPLE"}
    assert taken(planned("token-classification", given)) == {"aggregation_strategy": "simple"}
    with pytest.raises(ConfigError, match="aggregation_strategy is one of none, simple, .*'SOME'"):
        planned("token-classification", {"aggregation_strategy": "SOME"})


def test_words_are_a_column_of_lists_only_if_the_parameters_say_so(planned):
    split = {"is_split_into_words": True}
    assert planned("token-classification", split, text="words").columns == (("text", "words"),)
    with pytest.raises(ConfigError, match="column 'words' is list<.*reads text as 'text'"):
        planned("token-classification", {}, text="words")
    with pytest.raises(ConfigError, match="column 'text' is string.*reads a list of words"):
        planned("token-classification", split)
