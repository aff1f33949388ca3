"""The options of the command line, and the job that they describe."""

# Typer reads these annotations: they are no texts to evaluate later.
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipemill.errors import ConfigError

from ..execution.supervisor import delay_interrupts
from .option_values import (
    parse_columns,
    parse_count,
    parse_log_format,
    parse_number,
    parse_parameters,
    parse_price,
    parse_seconds,
)

if TYPE_CHECKING:
    from ..config.job import Job

_JOB, _INPUT, _OUTPUT = "Job", "Input", "Output"
_MEASURING, _CLUSTER = "Measuring", "Cluster"


def complete_task(incomplete: str) -> list[str]:
    """Return the names of the tasks that begin so."""
    from pipemill.pipelines.registry import ALIASES, task_names

    return [name for name in [*task_names(), *ALIASES] if name.startswith(incomplete)]


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
        return build_job(self.config, self.set or [], columns, self._sections(), needs_output)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that describe the job to a function. Raises ConfigError."""
        columns = parse_columns(self.column or [])
        return {"config": self.config, "settings": self.set, "columns": columns, **self._sections()}

    def _input_path(self) -> Any:
        with delay_interrupts():
            from ..rows.standard_input import STANDARD_INPUT, StandardInput

        paths = self.input or []
        if STANDARD_INPUT not in paths:
            return paths[0] if len(paths) == 1 else paths
        if len(paths) > 1:
            raise ConfigError("--input - is standard input, which can't be one of several inputs")
        return StandardInput()

    def _sections(self) -> dict[str, Any]:
        sections: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("task", "model", "output")
            if getattr(self, name) is not None
        }
        if self.input:
            sections["input"] = {"path": self._input_path()}
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


Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="The folder or URL that a run writes to.")
]
Dataset = Annotated[
    str, typer.Argument(metavar="NAME", help="A dataset on the Hugging Face Hub: org/name.")
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="NAME",
        help="Publish the rows in this dataset of the Hugging Face Hub.",
        rich_help_panel=_OUTPUT,
    ),
]
Private = Annotated[
    bool,
    typer.Option("--private", help="A dataset that is made is private.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Say only errors.", rich_help_panel=_OUTPUT),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        metavar="text|json",
        parser=parse_log_format,
        help="What is said on stderr: text, or lines of JSON.",
        rich_help_panel=_OUTPUT,
        show_default=True,
    ),
]
Out = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="The file. Without it the dashboard is printed."),
]
Splits = Annotated[bool, typer.Option("--splits", help="Show a line for each split, too.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow the run until it ends, here or elsewhere.")
]
Sample = Annotated[
    int,
    typer.Option(
        "--sample",
        metavar="N",
        parser=parse_number,
        help="Compute N rows again, one by one, with plain transformers.",
        show_default=False,
    ),
]
Rows = Annotated[
    int,
    typer.Option(
        "--rows",
        metavar="N",
        parser=parse_count,
        help="How many rows of the input to read.",
        rich_help_panel=_MEASURING,
        show_default=True,
    ),
]
FirstRows = Annotated[
    int,
    typer.Option(
        "-n",
        "--rows",
        metavar="N",
        parser=parse_count,
        help="How many rows to compute.",
        rich_help_panel=_INPUT,
        show_default=True,
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds",
        metavar="S",
        parser=parse_seconds,
        help="The most seconds for each setting that is measured.",
        rich_help_panel=_MEASURING,
        show_default=True,
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        metavar="N",
        parser=parse_count,
        help="How many actors the run will have. Without it as many as fit here.",
        rich_help_panel=_CLUSTER,
    ),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour",
        metavar="P",
        parser=parse_price,
        help="What an actor costs in an hour, with its GPU or its CPUs.",
        rich_help_panel=_CLUSTER,
    ),
]
Plot = Annotated[
    str | None,
    typer.Option(
        "--plot",
        metavar="PATH",
        help="The plot's file. Without it tune.png beside the output, or in this folder.",
        rich_help_panel=_OUTPUT,
    ),
]
OtherEngines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME[:DTYPE]",
        help="Another engine to measure beside the job's, such as openvino:int8; may be repeated.",
        rich_help_panel=_MEASURING,
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        help="Of the cluster's dashboard, such as http://HEAD:8265.",
        rich_help_panel=_CLUSTER,
        show_default=False,
    ),
]
Waits = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Follow the job's log, and end with its exit status.",
        rich_help_panel=_CLUSTER,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries",
        metavar="N",
        parser=parse_number,
        help="How often a run that failed is started again, to resume.",
        rich_help_panel=_CLUSTER,
        show_default=False,
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME[=VALUE]",
        help="A variable for the job; without VALUE it is that of this shell. May be repeated.",
        rich_help_panel=_CLUSTER,
    ),
]
WorkingDir = Annotated[
    str | None,
    typer.Option(
        "--working-dir",
        metavar="PATH",
        help="A folder that travels along, for modules that the job imports.",
        rich_help_panel=_CLUSTER,
    ),
]
Code = Annotated[
    str,
    typer.Option(
        "--code",
        metavar="here|cluster",
        help="Whose pipemill runs: this one, which travels along, or the cluster's.",
        rich_help_panel=_CLUSTER,
        show_default=True,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A task, such as text-classification.",
        show_default=False,
        autocompletion=complete_task,
    ),
]
