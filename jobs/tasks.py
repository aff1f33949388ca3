"""Describe the tasks: what each reads, adds and takes. `pipemill tasks`."""

from __future__ import annotations

import json
import textwrap

from pipemill.actors.columns import describe
from pipemill.actors.task import Column, Parameter
from pipemill.pipelines.registry import ALIASES, find_task, is_transformers_task, task_names
from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.user_pipeline import user_pipeline_task

from pipemill.errors import ConfigError

from .output.text_table import Block, TextTable
from .planning.resolve_task import USUAL, inputs_of

_WIDTH = 100
_MANY = 5  # parameters of one description share a paragraph


def list_tasks() -> list[Block]:
    """Return a line for each task: its name, the columns it reads, and those it adds."""
    rows = [(_with_aliases(name), *_columns_of(name)) for name in task_names()]
    return [
        TextTable(header=("task", "reads", "adds"), rows=rows),
        "",
        "A column with ? is optional. More about one: pipemill tasks NAME. Other tasks that the",
        "installed transformers knows run too, and add the column `result`.",
    ]


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
        ("adds", _paragraph(spec.adds or "what its results() returns")),
        ("parameters", _describe_parameters(spec)),
        ("example", _example_command(spec)),
        ("the same as a file, for pipemill run job.yaml", _example_yaml(spec)),
    ]
    texts = [f"{title}\n{textwrap.indent(text, '  ')}" for title, text in sections]
    return "\n\n".join([_with_aliases(spec.name), *texts])


def _with_aliases(name: str) -> str:
    aliases = [alias for alias, task in ALIASES.items() if task == name]
    aliases += ["translation_XX_to_YY"] if name == "translation" else []
    return f"{name} ({', '.join(aliases)})" if aliases else name


def _columns_of(name: str) -> tuple[str, str]:
    """Return the columns that a task reads and adds."""
    try:
        spec = find_task(name)
    except LookupError as error:  # a spec of another package, which is broken
        return str(error.args[0]), ""
    names = [c.name if c.required else f"{c.name}?" for c in spec.inputs]
    return ", ".join(names), spec.adds


def _describe_columns(spec: TaskSpec) -> str:
    if not spec.inputs:
        usual = ", ".join(USUAL)
        return _paragraph(
            "the columns that input.columns names; without it the first that exists of "
            f"{usual}, or the only one"
        )
    split = inputs_of(spec, {"is_split_into_words": "is_split_into_words" in spec.parameters})
    lines = [
        _item(column.name, _describe_column(column, other))
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
            lines += [_item(name, text) for name in names]
        else:
            last.append(_paragraph(f"{text}: {', '.join(names)}"))
    return "\n".join(lines + last)


def _describe_parameter(parameter: Parameter) -> str:
    return f"{parameter.wanted()}; {json.dumps(parameter.default)} unless given"


def _example_values(spec: TaskSpec) -> tuple[list[str], dict[str, str]]:
    """Return the columns and the parameters that a job of this spec needs."""
    needed = [column for column in spec.inputs if column.required]
    one_of = spec.one_of[:1]
    columns = [c.name for c in needed if not c.parameter] + list(one_of)
    parameters = {c.name: _example_value(c) for c in needed if c.parameter}
    return columns or [column.name for column in spec.inputs[:1]], parameters


def _example_value(column: Column) -> str:
    return "[red, green]" if column.kind == "labels" else "what is this"


def _example_command(spec: TaskSpec) -> str:
    columns, parameters = _example_values(spec)
    lines = [
        f"pipemill run --task {spec.name} --model FOLDER-OR-HUB-NAME",
        "--input 'data/*.parquet' --output answers/",
    ]
    options = [f"--column {name}=COLUMN" for name in columns]
    options += [f"--param '{name}={value}'" for name, value in parameters.items()]
    if options:
        lines.append(" ".join(options))
    return " \\\n    ".join(lines)


def _example_yaml(spec: TaskSpec) -> str:
    columns, parameters = _example_values(spec)
    named = ", ".join(f"{name}: COLUMN" for name in columns)
    lines = [f"task: {spec.name}", "model: FOLDER-OR-HUB-NAME"]
    lines.append(f"input: {{path: 'data/*.parquet', columns: {{{named}}}}}")
    lines.append("output: answers/")
    if parameters:
        inside = ", ".join(f"{name}: {value}" for name, value in parameters.items())
        lines.append(f"parameters: {{{inside}}}")
    return "\n".join(lines)


def _item(name: str, text: str) -> str:
    return textwrap.fill(f"{name:28}  {text}", _WIDTH - 2, subsequent_indent=" " * 30)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 2, break_on_hyphens=False)
