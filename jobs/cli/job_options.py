"""The options that say which job it is, and the job that they describe."""

# Typer reads these annotations: they are no texts to evaluate later.
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipemill.errors import ConfigError

from ..execution.supervisor import delay_interrupts
from .option_values import complete_task, parse_columns, parse_parameters

if TYPE_CHECKING:
    from ..config.job import Job

_JOB, _INPUT, _OUTPUT = "Job", "Input", "Output"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """The options that say which job it is."""

    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG", help="A YAML file. The options override it.", show_default=False
        ),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="What to compute, such as text-classification.",
            rich_help_panel=_JOB,
            autocompletion=complete_task,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="A folder, or a name on the Hugging Face Hub.",
            rich_help_panel=_JOB,
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=YAML",
            help="A parameter of the pipeline, such as top_k=3. May be repeated.",
            rich_help_panel=_JOB,
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=YAML",
            help="Any key of the config, such as output.rows_per_part=300. May be repeated.",
            rich_help_panel=_JOB,
        ),
    ] = None
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="PATH",
            help="A file, folder, glob or URL; - for standard input. May be repeated.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=COLUMN",
            help="The input column that the task reads as NAME; NAME= for none. May be repeated.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="PATH", help="A folder or URL.", rich_help_panel=_OUTPUT),
    ] = None

    def build(self, needs_output: bool = True) -> "Job":
        """Return the job. Raises ConfigError."""
        with delay_interrupts():
            from ..config.load import build_job

        columns = parse_columns(self.column or [])
        return build_job(
            self.config, self.set or [], columns, self._collect_sections(), needs_output
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the job to a function. Raises ConfigError."""
        columns = parse_columns(self.column or [])
        return {
            "config": self.config,
            "settings": self.set,
            "columns": columns,
            **self._collect_sections(),
        }

    def _read_input_path(self) -> Any:
        with delay_interrupts():
            from ..rows.standard_input import STANDARD_INPUT, StandardInput

        paths = self.input or []
        if STANDARD_INPUT not in paths:
            return paths[0] if len(paths) == 1 else paths
        if len(paths) > 1:
            raise ConfigError("--input - is standard input, which can't be one of several inputs")
        return StandardInput()

    def _collect_sections(self) -> dict[str, Any]:
        sections: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("task", "model", "output")
            if getattr(self, name) is not None
        }
        if self.input:
            sections["input"] = {"path": self._read_input_path()}
        if self.param:
            sections["parameters"] = parse_parameters(self.param)
        return sections


def takes_job(verb: Callable[..., int]) -> Callable[..., int]:
    """Replace a verb's first parameter, the `JobOptions`, by one for each of these options."""
    _, *others = inspect.signature(verb, eval_str=True).parameters.values()
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for field in fields(JobOptions)
    ]
    names = {option.name for option in options}
    keyword_only = [other.replace(kind=inspect.Parameter.KEYWORD_ONLY) for other in others]

    @wraps(verb)
    def command(**given: Any) -> int:
        job = JobOptions(**{name: given[name] for name in names})
        return verb(job, **{name: value for name, value in given.items() if name not in names})

    signature = inspect.Signature([*options, *keyword_only])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command
