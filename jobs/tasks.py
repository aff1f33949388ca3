"""What the tasks read, add and take, told to a reader: `pipemill tasks`."""

from __future__ import annotations

import json
import textwrap

from pipemill.actors.columns import describe
from pipemill.actors.task import Column, Parameter
from pipemill.pipelines.registry import ALIASES, find_task, is_transformers_task, task_names
from pipemill.pipelines.task_spec import TaskSpec
from pipemill.pipelines.user_pipeline import user_pipeline_task

from pipemill.errors import ConfigError

from .planning.resolve_task import USUAL, inputs_of

_WIDTH = 100
_MANY = 5  # parameters of one description share a paragraph


def all_tasks() -> str:
    """A line for each task: its name, the columns it reads, and those it adds."""
    lines = [f"{_with_aliases(name):45}  {_reads(name)}" for name in task_names()]
    return "\n".join(
        [
            *lines,
            "",
            "A column with ? is optional. More of one: pipemill tasks NAME. Other tasks that the",
            "installed transformers knows run too, and add the column `result`.",
        ]
    )


def one_task(name: str) -> str:
    """Its columns, parameters and an example. Raises ConfigError with the nearest name."""
    try:
        spec = find_task(name)
    except LookupError as error:
        if not is_transformers_task(name):
            raise ConfigError(str(error.args[0])) from None
        spec = user_pipeline_task(name, ())
    sections = [
        ("reads", _columns(spec)),
        ("adds", _paragraph(spec.adds or "what its results() says")),
        ("parameters", _parameters(spec)),
        ("example", _command(spec)),
        ("the same as a file, for pipemill run job.yaml", _yaml(spec)),
    ]
    told = [f"{title}\n{textwrap.indent(text, '  ')}" for title, text in sections]
    return "\n\n".join([_with_aliases(spec.name), *told])


def _with_aliases(name: str) -> str:
    aliases = [alias for alias, own in ALIASES.items() if own == name]
    aliases += ["translation_XX_to_YY"] if name == "translation" else []
    return f"{name} ({', '.join(aliases)})" if aliases else name


def _reads(name: str) -> str:
    try:
        spec = find_task(name)
    except LookupError as error:  # of another package, broken
        return str(error.args[0])
    names = [c.name if c.required else f"{c.name}?" for c in spec.inputs]
    return f"{', '.join(names)} -> {spec.adds}"


def _columns(spec: TaskSpec) -> str:
    if not spec.inputs:
        usual = ", ".join(USUAL)
        return _paragraph(
            "the columns that input.columns names; without it the first that is there of "
            f"{usual}, or the only one"
        )
    split = inputs_of(spec, {"is_split_into_words": "is_split_into_words" in spec.parameters})
    lines = [
        _item(column.name, _told(column, other))
        for column, other in zip(spec.inputs, split, strict=True)
    ]
    if names := spec.one_of:
        lines.append(f"at least one of {', '.join(names)}")
    return "\n".join(lines)


def _told(column: Column, split: Column) -> str:
    """split: the column with is_split_into_words, if its task knows that."""
    notes = [describe(column.kind)]
    if split != column:
        notes.append(f"{describe(split.kind)} with is_split_into_words")
    if not column.required:
        notes.append("optional")
    if column.parameter:
        notes.append(f"or parameters.{column.name} for all rows")
    return "; ".join(notes)


def _parameters(spec: TaskSpec) -> str:
    if not spec.parameters:
        return "those of its pipeline" if spec.any_parameter else "none"
    alike: dict[str, list[str]] = {}
    for name, parameter in spec.parameters.items():
        alike.setdefault(_value(parameter), []).append(name)
    lines, last = [], []
    for told, names in alike.items():
        if len(names) < _MANY:
            lines += [_item(name, told) for name in names]
        else:
            last.append(_paragraph(f"{told}: {', '.join(names)}"))
    return "\n".join(lines + last)


def _value(parameter: Parameter) -> str:
    return f"{parameter.wanted()}; {json.dumps(parameter.default)} unless given"


def _example(spec: TaskSpec) -> tuple[list[str], dict[str, str]]:
    """Columns, and parameters, without which a job of this task can't be."""
    needed = [column for column in spec.inputs if column.required]
    one_of = spec.one_of[:1]
    columns = [c.name for c in needed if not c.parameter] + list(one_of)
    given = {c.name: _sample(c) for c in needed if c.parameter}
    return columns or [column.name for column in spec.inputs[:1]], given


def _sample(column: Column) -> str:
    return "[red, green]" if column.kind == "labels" else "what is this"


def _command(spec: TaskSpec) -> str:
    columns, given = _example(spec)
    words = [f"pipemill run --task {spec.name} --model FOLDER-OR-HUB-NAME"]
    words.append("--input 'data/*.parquet' --output answers/")
    words += [f"--column {name}=COLUMN" for name in columns]
    words += [f"--param '{name}={value}'" for name, value in given.items()]
    return " \\\n    ".join([words[0], words[1], *([" ".join(words[2:])] if words[2:] else [])])


def _yaml(spec: TaskSpec) -> str:
    columns, given = _example(spec)
    named = ", ".join(f"{name}: COLUMN" for name in columns)
    lines = [f"task: {spec.name}", "model: FOLDER-OR-HUB-NAME"]
    lines.append(f"input: {{path: 'data/*.parquet', columns: {{{named}}}}}")
    lines.append("output: answers/")
    if given:
        inside = ", ".join(f"{name}: {value}" for name, value in given.items())
        lines.append(f"parameters: {{{inside}}}")
    return "\n".join(lines)


def _item(name: str, told: str) -> str:
    return textwrap.fill(f"{name:28}  {told}", _WIDTH - 2, subsequent_indent=" " * 30)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 2, break_on_hyphens=False)
