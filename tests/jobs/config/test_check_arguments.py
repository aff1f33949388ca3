"""Arguments in Python that no config has: a wrong one is one line, before anything is loaded."""

from __future__ import annotations

import math

import pytest

import pipemill
from pipemill.errors import ConfigError
from tests.support import light

JOB = {"task": "fill-mask", "model": "/no/model", "input": "/no/input"}


@pytest.fixture
def report(tmp_path, monkeypatch):
    light.install(monkeypatch)
    return pipemill.run(light.job(tmp_path, ["a b", "c"]))


@pytest.fixture
def out(report):
    return report.output


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("preview", {"rows": 2.5}, "rows must be a whole number of at least 1, not 2.5"),
        ("plan", {"rows": "3"}, "rows must be a whole number of at least 1, not '3'"),
        ("plan", {"replicas": 1.5}, "replicas must be a whole number of at least 1, not 1.5"),
        ("plan", {"price_per_hour": math.inf}, "price_per_hour must be a number above 0, not inf"),
        ("plan", {"engines": "onnx"}, r"engines must be a list of texts, such as \['onnx'\], not"),
        ("tune", {"engines": [1]}, r"engines must be a list of texts, such as \['onnx'\], not \[1"),
        ("tune", {"plot": 5}, "plot must be the path of a file, not 5"),
        ("tune", {"log": "x"}, "log must be a function that takes a line, such as print, not 'x'"),
        ("run", {"settings": "input.limit=2"}, r"settings must be a list .*\['input.limit=20'\]"),
        ("run", {"settings": [5]}, r"settings must be a list of texts, .*not \[5\]"),
        ("retry", {"settings": {"input.limit": 2}}, "settings must be a list of texts"),
        ("run", {"colums": {"text": "t"}}, "unknown key 'colums' in the job; did you mean 'colu"),
        ("submit", {"address": None}, "address must be a text such as http://HEAD:8265, not None"),
        ("submit", {"address": "h", "env": "A=1"}, "env must map texts to texts, as in .*'A=1'"),
        ("submit", {"address": "h", "env": {"A=B": "x"}}, "env: 'A=B' can't be the name of a var"),
        ("submit", {"address": "h", "retries": 1.5}, "retries must be a whole number of at leas"),
        ("submit", {"address": "h", "working_dir": 5}, "working_dir must be the path of a folder"),
        ("Job", {"outptu": "o"}, "^'output' is missing in the job\nunknown key 'outptu' in"),
        ("Job", {"output": {"path": 5}}, r"^'output.path' in the job: must be a text \(it is 5\)"),
    ],
)
def test_of_a_job(verb, arguments, message):
    with pytest.raises(ConfigError, match=message):
        getattr(pipemill, verb)(**JOB, **arguments)


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("verify", {"sample": -1}, "sample must be a whole number of at least 0, not -1"),
        ("verify", {"sample": "3"}, "sample must be a whole number of at least 0, not '3'"),
        ("verify", {"sample": math.nan}, "sample must be a whole number of at least 0, not nan"),
        ("verify", {"input_options": "key"}, "input_options must map names of options to values"),
        ("status", {"storage_options": "key"}, "storage_options must map .*; it is a str"),
        ("report", {"storage_options": [1]}, "storage_options must map .*; it is a list"),
        ("read", {"columns": 5}, r"columns must be a list of texts, such as \['text'\], not 5"),
        ("read", {"columns": "text"}, "columns must be a list of texts, .*, not 'text'"),
        ("read", {"columns": ["text", "n", "text"]}, "columns names 'text' twice: name it once"),
    ],
)
def test_of_an_output(verb, arguments, message, out):
    with pytest.raises(ConfigError, match=message):
        getattr(pipemill, verb)(out, **arguments)


def test_what_names_no_output_is_not_shown_at_length(report):
    for verb in (pipemill.read, pipemill.status, pipemill.verify):
        with pytest.raises(ConfigError, match="a text or a path, not by a Report$"):
            verb(report)


def test_what_names_no_task_or_kind_is_named():
    with pytest.raises(ConfigError, match="5 is not the place of a task"):
        pipemill.register_task(5)
    with pytest.raises(ValueError, match="'integer' is no kind of a parameter: these are any, .*"):
        pipemill.Parameter(3, "integer|null")


def test_iterators_of_texts_are_lists(out):
    assert pipemill.read(out, iter(["n"])).to_table().column_names == ["n"]
    with pytest.raises(ConfigError, match="no input at /no/input|no model at /no/model"):
        pipemill.run(**JOB, output="/no/output", settings=iter(["input.limit=2"]))
