"""Describe the tasks: what each reads, adds and takes. `pipemill tasks`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipemill.actors.columns import describe
from pipemill.actors.task import Column, Parameter
from pipemill.pipelines.registry import ALIASES, find_task, is_transformers_task, task_names
from pipemill.pipelines.task_columns import USUAL, list_inputs
from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.user_pipeline import user_pipeline_task

from pipemill.errors import ConfigError

from .output.text_table import Block, Shown, TextTable, make_fact_table

_HEADER = ("task", "reads", "adds")
_WIDTH = 100
_MANY = 5  # parameters of one description share a paragraph


@dataclass(frozen=True, kw_only=True)
class TaskSummary(Shown):
    """A task: what it is called, what it reads, and what it adds.

    Attributes:
        name, aliases: What a job may call it.
        reads: The columns that it reads; empty if they follow from the job.
        adds: The columns that it adds, in words.
        parameters: The parameters that it takes, by name.
        problem: Why it can't be used: a package brings it, and is broken. None for all others.
    """

    name: str
    aliases: tuple[str, ...] = ()
    reads: tuple[Column, ...] = ()
    adds: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    problem: str | None = None

    def cells(self) -> tuple[str, str, str]:
        """Return the task's line in the list of all."""
        names = [column.name if column.required else f"{column.name}?" for column in self.reads]
        reads = ", ".join(names) if self.problem is None else self.problem
        return _name_with_aliases(self.name), reads, self.adds

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        lines = list(zip(_HEADER, self.cells(), strict=True))
        return [make_fact_table([*lines, ("parameters", ", ".join(self.parameters) or "none")])]


class TaskList(Shown, list[TaskSummary]):
    """The tasks in their order; printed, it is the list of `pipemill tasks`."""

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [
            TextTable(header=_HEADER, rows=[task.cells() for task in self]),
            "",
            "A column with ? is optional. More about one: pipemill tasks NAME. Other tasks that "
            "the\ninstalled transformers knows run too, and add the column `result`.",
        ]


def tasks() -> TaskList:
    """List all tasks: those of transformers, and those that installed packages bring.

    Returns:
        What each is called, reads and adds, and its parameters.
    """
    return TaskList(_summarize(name) for name in task_names())


def _summarize(name: str) -> TaskSummary:
    try:
        spec = find_task(name)
    except LookupError as error:  # a spec of another package, which is broken
        return TaskSummary(name=name, problem=str(error.args[0]))
    return TaskSummary(
        name=name,
        aliases=_list_aliases(name),
        reads=tuple(spec.inputs),
        adds=spec.adds,
        parameters=dict(spec.parameters),
    )


def describe_task(name: str) -> str:
    """Return a task's columns, parameters and an example.

    Raises:
        ConfigError: No task has this name. The message names the nearest one.
    """
    try:
        spec = find_task(name)
    except LookupError as error:
        if not is_transformers_task(name):
            raise ConfigError(str(error.args[0])) from None
        spec = user_pipeline_task(name, ())
    sections = [
        ("reads", _describe_columns(spec)),
        ("adds", _format_paragraph(spec.adds or "what its results() returns")),
        ("parameters", _describe_parameters(spec)),
        ("example", _make_example_command(spec)),
        ("the same as a file, for pipemill run job.yaml", _make_example_yaml(spec)),
    ]
    texts = [f"{title}\n{textwrap.indent(text, '  ')}" for title, text in sections]
    return "\n\n".join([_name_with_aliases(spec.name), *texts])


def _name_with_aliases(name: str) -> str:
    aliases = _list_aliases(name)
    return f"{name} ({', '.join(aliases)})" if aliases else name


def _list_aliases(name: str) -> tuple[str, ...]:
    aliases = tuple(alias for alias, task in ALIASES.items() if task == name)
    return (*aliases, "translation_XX_to_YY") if name == "translation" else aliases


def _describe_columns(spec: TaskSpec) -> str:
    if not spec.inputs:
        usual = ", ".join(USUAL)
        return _format_paragraph(
            "the columns that input.columns names; without it the first that exists of "
            f"{usual}, or the only one"
        )
    split = list_inputs(spec, {"is_split_into_words": "is_split_into_words" in spec.parameters})
    lines = [
        _format_item(column.name, _describe_column(column, other))
        for column, other in zip(spec.inputs, split, strict=True)
    ]
    if names := spec.one_of:
        lines.append(f"at least one of {', '.join(names)}")
    return "\n".join(lines)


def _describe_column(column: Column, split: Column) -> str:
    """split: The column with is_split_into_words, if its task knows that."""
    notes = [describe(column.kind)]
    if split != column:
        notes.append(f"{describe(split.kind)} with is_split_into_words")
    if not column.required:
        notes.append("optional")
    if column.parameter:
        notes.append(f"or parameters.{column.name} for all rows")
    return "; ".join(notes)


def _describe_parameters(spec: TaskSpec) -> str:
    if not spec.parameters:
        return "those of its pipeline" if spec.any_parameter else "none"
    alike: dict[str, list[str]] = {}
    for name, parameter in spec.parameters.items():
        alike.setdefault(_describe_parameter(parameter), []).append(name)
    lines, last = [], []
    for text, names in alike.items():
        if len(names) < _MANY:
            lines += [_format_item(name, text) for name in names]
        else:
            last.append(_format_paragraph(f"{text}: {', '.join(names)}"))
    return "\n".join(lines + last)


def _describe_parameter(parameter: Parameter) -> str:
    return f"{parameter.wanted()}; {json.dumps(parameter.default)} unless given"


def _make_example_values(spec: TaskSpec) -> tuple[list[str], dict[str, str]]:
    """Return the columns and the parameters that a job of this spec needs."""
    needed = [column for column in spec.inputs if column.required]
    one_of = spec.one_of[:1]
    columns = [c.name for c in needed if not c.parameter] + list(one_of)
    parameters = {c.name: _make_example_value(c) for c in needed if c.parameter}
    return columns or [column.name for column in spec.inputs[:1]], parameters


def _make_example_value(column: Column) -> str:
    return "[red, green]" if column.kind == "labels" else "what is this"


def _make_example_command(spec: TaskSpec) -> str:
    columns, parameters = _make_example_values(spec)
    lines = [
        f"pipemill run --task {spec.name} --model FOLDER-OR-HUB-NAME",
        "--input 'data/*.parquet' --output answers/",
    ]
    options = [f"--column {name}=COLUMN" for name in columns]
    options += [f"--param '{name}={value}'" for name, value in parameters.items()]
    if options:
        lines.append(" ".join(options))
    return " \\\n    ".join(lines)


def _make_example_yaml(spec: TaskSpec) -> str:
    columns, parameters = _make_example_values(spec)
    named = ", ".join(f"{name}: COLUMN" for name in columns)
    lines = [f"task: {spec.name}", "model: FOLDER-OR-HUB-NAME"]
    lines.append(f"input: {{path: 'data/*.parquet', columns: {{{named}}}}}")
    lines.append("output: answers/")
    if parameters:
        inside = ", ".join(f"{name}: {value}" for name, value in parameters.items())
        lines.append(f"parameters: {{{inside}}}")
    return "\n".join(lines)


def _format_item(name: str, text: str) -> str:
    return textwrap.fill(f"{name:28}  {text}", _WIDTH - 2, subsequent_indent=" " * 30)


def _format_paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 2, break_on_hyphens=False)
