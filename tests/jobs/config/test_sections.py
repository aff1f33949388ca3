"""The keyword arguments of the functions that take a job."""

from __future__ import annotations

import inspect

import pytest
from pipemill.jobs.cli import commands
from pipemill.jobs.config.job import Job
from pipemill.jobs.config.sections import Sections

import pipemill

VERBS = ("run", "retry", "plan", "preview", "tune")
LOOKS = ("plan", "preview", "tune")


def test_the_sections_are_the_keys_of_a_job():
    assert set(Sections.__annotations__) == set(Job.model_fields)


@pytest.mark.parametrize("verb", VERBS)
def test_a_signature_names_every_section(verb):
    shown = inspect.signature(getattr(pipemill, verb))
    assert set(shown.parameters) >= {"config", "settings", "columns", *Job.model_fields}
    assert "task: str = ..." in str(shown)


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_name_is_that_of_a_wrong_key(verb):
    with pytest.raises(pipemill.ConfigError, match="unknown key 'modle'.*did you mean 'model'"):
        getattr(pipemill, verb)(task="fill-mask", modle="m", input="i", output="o")


@pytest.mark.parametrize(
    ("wrong", "right"), [("engine", "model.engine"), ("aggregation_strategy", "parameters.aggr")]
)
def test_a_key_of_a_section_is_found_there(wrong, right):
    with pytest.raises(pipemill.ConfigError, match=f"key '{wrong}' .*did you mean '{right}"):
        pipemill.plan(task="ner", model="m", input="i", output="o", **{wrong: "onnx"})


@pytest.mark.parametrize(
    ("verb", "wrong", "right"),
    [("tune", "secs", "seconds"), ("plan", "replica", "replicas"), ("run", "setings", "settings")],
)
def test_a_wrong_name_may_be_meant_as_any_argument_of_the_function(verb, wrong, right):
    with pytest.raises(pipemill.ConfigError, match=f"key '{wrong}'.*did you mean '{right}'"):
        getattr(pipemill, verb)(task="fill-mask", model="m", input="i", **{wrong: 1})


@pytest.mark.parametrize("verb", LOOKS)
def test_defaults_are_those_of_the_command(verb):
    def defaults(function):
        found = inspect.signature(function).parameters
        return {k: found[k].default for k in ("rows", "seconds", "plot") if k in found}

    assert defaults(getattr(pipemill, verb)) == defaults(getattr(commands, verb))
