"""The options of the verbs, beside those that say which job it is."""

# Typer reads these annotations: they are no texts to evaluate later.
from typing import Annotated

import typer

from .option_values import (
    complete_task,
    make_choice,
    parse_count,
    parse_number,
    parse_price,
    parse_seconds,
)

_INPUT, _OUTPUT, _MEASURING, _CLUSTER = "Input", "Output", "Measuring", "Cluster"

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
OnChanged = Annotated[
    str,
    typer.Option(
        "--on-changed",
        metavar="error|reprocess",
        parser=make_choice("error", "reprocess"),
        help="Input files that changed since they were planned are an error, or computed again.",
        rich_help_panel=_OUTPUT,
        show_default=True,
    ),
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
        parser=make_choice("text", "json"),
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
        parser=make_choice("here", "cluster"),
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
