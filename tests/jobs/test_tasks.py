"""What `pipemill tasks` tells, held against what the tasks do."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from pipemill.actors.task import Loaded
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output.text_table import join_blocks
from pipemill.jobs.tasks import describe_task, tasks
from pipemill.pipelines.pipeline_task import PipelineTask
from pipemill.pipelines.registry import ALIASES, find_task, task_names

import pipemill

# Parameters that change the columns.
VARIANTS = [
    {},
    {"top_k": 1},
    {"top_k": 3},
    {"num_return_sequences": 2},
    {"generate_kwargs": {"num_return_sequences": 2}},
    {"return_timestamps": True},
    {"several_masks": True},
    {"aggregation_strategy": "simple"},
    {"output_bboxes_mask": True, "output_rle_mask": True},
    {"generation_mode": "image"},
    {"pooling": "none"},
]
UNTOLD = {"size", "counts", "role", "content"}  # of a run-length encoding, and of a message
DECLARED = [name for name in task_names() if isinstance(find_task(name), PipelineTask)]


def names(kind) -> set[str]:
    """Of columns and of fields in them."""
    if isinstance(kind, pa.Schema) or pa.types.is_struct(kind):
        return {field.name for field in kind}.union(*(names(field.type) for field in kind))
    return names(kind.value_type) if hasattr(kind, "value_type") else set()


@pytest.mark.parametrize("name", DECLARED)
def test_every_column_that_is_added_is_told(name):
    task = find_task(name)
    config = SimpleNamespace(hidden_size=8)
    pipeline = SimpleNamespace(model=SimpleNamespace(config=config))
    told = set(re.findall(r"\w+", task.adds))
    columns = tuple(column.name for column in task.inputs if column.name == "messages")
    seen = set()
    for parameters in VARIANTS:
        known = {key: value for key, value in parameters.items() if key in task.parameters}
        if known == parameters and task.results is not None:
            loaded = Loaded(pipeline=pipeline, parameters=parameters, columns=columns)
            seen |= names(task.results(loaded)) - UNTOLD
    assert seen <= told
    assert task.results is None or seen, "nothing was held against it"
    # Told first of each part, and never added: a wrong name.
    firsts = re.findall(r"(?:^|; )(\w+)(?=[:,;]|$)", task.adds)
    assert task.results is None or set(firsts) <= seen


def test_the_list_names_every_task_and_alias():
    lines = join_blocks(tasks().blocks()).split("\n")
    for name in task_names():
        (line,) = [line for line in lines if re.match(rf"{name}[ (]", line)]
        assert all(column.name in line for column in find_task(name).inputs)
    assert all(f"({alias})" in join_blocks(tasks().blocks()) for alias in ALIASES)


@pytest.mark.parametrize("name", [*task_names(), "translation_en_to_de", "vqa"])
def test_a_task_is_told_whole_and_its_example_is_a_job(name):
    text, task = describe_task(name), find_task(name)
    assert all(f"\n  {column.name} " in text for column in task.inputs)
    assert all(re.search(rf"\b{parameter}\b", text) for parameter in task.parameters)
    assert all(len(line) <= 100 for line in text.split("\n"))
    job = build_job(yaml.safe_load(text.rpartition("job.yaml\n")[2]), [], {}, {})
    assert job.task == task.name
    assert set(job.parameters) <= set(task.parameters)
    read = {column.name for column in task.inputs}
    assert set(job.input.columns) <= read
    needed = {column.name for column in task.inputs if column.required}
    assert needed <= {*job.input.columns, *job.parameters}


def test_types_and_defaults_and_aliases():
    text = describe_task("ner")
    assert text.startswith("token-classification (ner)\n")
    assert 'one of none, simple, first, average, max; "none" unless given' in text
    assert 'ignore_labels                 a list (each a text); ["O"] unless given' in text
    assert "stride                        a whole number of at least 0 or null; null unless" in text


def test_an_unknown_name_is_status_2_with_the_nearest(capsys):
    assert main(["tasks", "summarisation"]) == 2
    assert "did you mean 'summarization'" in capsys.readouterr().err
    assert main(["tasks"]) == 0
    assert "sentiment-analysis" in capsys.readouterr().out


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom pipemill.jobs.cli.app import main\n"
        "main(['tasks'])\nmain(['tasks', 'ner'])\n"
        "print({'torch', 'transformers', 'ray', 'PIL', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_in_python_they_are_records(capsys):
    found = pipemill.tasks()
    assert [task.name for task in found] == list(task_names())
    (zero,) = [task for task in found if task.name == "zero-shot-classification"]
    assert [column.name for column in zero.reads][:2] == ["text", "candidate_labels"]
    assert "hypothesis_template" in zero.parameters
    assert zero.adds == find_task(zero.name).adds
    assert {alias for task in found for alias in task.aliases} >= set(ALIASES)
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    page = found._repr_html_()
    assert page.count("<tr>") == len(found) + 1
    assert "<table>" in zero._repr_html_()


def test_a_task_of_a_broken_package_is_among_them(monkeypatch):
    def broken(name):
        raise LookupError(f"{name} is <b>broken</b>")

    monkeypatch.setattr("pipemill.jobs.tasks.find_task", broken)
    first = pipemill.tasks()[0]
    assert (first.problem, first.reads) == (f"{first.name} is <b>broken</b>", ())
    assert "&lt;b&gt;broken" in pipemill.tasks()._repr_html_()
