"""Read a command line with typer, but leave running, interrupts and messages to pipemill.

Typer's `main` would turn an interrupt and a closed pipe into exits without a word. So a command is
parsed first, and called after typer has returned.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..monitoring.messages import is_terminal

PROGRAM = "pipemill"
# Where a shell says that it wants completions, and which.
COMPLETION = "_PIPEMILL_COMPLETE"

# Typer exports this class only by its subclasses.
_UsageError: Any = typer.BadParameter.__bases__[0]


class UsageError(Exception):
    """The command line is wrong. Exit status 2."""


class Command(TyperCommand):
    """A verb, which is returned instead of called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _check_values(self, ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Callable[[], int]:
        assert self.callback is not None
        return partial(self.callback, **ctx.params)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = _choose_markup()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_panels(self, ctx, formatter)


class Group(TyperGroup):
    """All verbs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(f"unknown verb {args[0]!r}{_did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = _choose_markup()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels = defaultdict(list)
        for name, command in self.commands.items():
            panels[getattr(command, "rich_help_panel", None) or "Commands"].append(
                (name, command.get_short_help_str(100))
            )
        for panel, verbs in panels.items():
            with formatter.section(panel):
                formatter.write_dl(verbs)
        _write_panels(self, ctx, formatter)


def parse(app: typer.Typer, arguments: list[str]) -> Callable[[], int]:
    """Return the verb to call.

    Raises:
        UsageError: The command line is wrong.
        SystemExit: All it asked for is done: help, the version, or the completions of a word.
    """
    group: Any = typer.main.get_command(app)
    if os.environ.get(COMPLETION):
        group.main(arguments, prog_name=PROGRAM, complete_var=COMPLETION)
    if not arguments:
        raise UsageError(f"a verb is missing: {', '.join(group.commands)}\nSee {PROGRAM} --help")
    verb = arguments[0] if arguments[0] in group.commands else ""
    see = f"See {f'{PROGRAM} {verb}'.strip()} --help"
    try:
        with group.make_context(PROGRAM, list(arguments)) as context:
            return group.invoke(context)
    except typer.Exit as end:  # --help, --version
        raise SystemExit(end.exit_code) from None
    except UsageError as error:
        raise UsageError(f"{error}\n{see}") from None
    except _UsageError as error:
        raise UsageError(f"{_explain(error, arguments)}\n{see}") from None


def _explain(error: Any, arguments: list[str]) -> str:
    """Return one line on what is wrong."""
    if hasattr(error, "possibilities"):
        # Of `-model` typer names only `-m`.
        name = next((word for word in arguments if word.startswith(error.option_name)), "")
        name = name.partition("=")[0] or error.option_name
        names = _list_option_names(error.ctx)
        hint = (
            _did_you_mean(name, names, least=0.85)
            or _hint_setting(name, names, arguments)
            or _did_you_mean(name, names)
        )
        return f"unknown option {name}{hint}"
    if hasattr(error, "option_name"):
        return f"{error.option_name} needs a value"
    parameter = getattr(error, "param", None)
    if parameter is None:
        message = error.format_message()
        return f"{message[:1].lower()}{message[1:].rstrip('.')}"
    name = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[-1]
    if hasattr(error, "param_type"):
        return f"{name} is missing. {parameter.help}".rstrip(". ")
    return f"{name} {error.message}"


def _check_values(command: Any, ctx: Any, args: list[str]) -> None:
    """Raise where the value of an option is missing: typer would take the next option for it."""
    names = set(_list_option_names(ctx))
    takes_value = {
        name for p in command.params if not getattr(p, "is_flag", False) for name in p.opts
    }
    for word, following in pairwise(args):
        if word == "--":
            return
        if word in takes_value & names and following.partition("=")[0] in names:
            ctx.fail(f"{word} needs a value, and {following} follows it")


def _list_option_names(ctx: Any) -> list[str]:
    parameters = ctx.command.get_params(ctx)
    return [name for p in parameters if p.param_type_name == "option" for name in p.opts]


def _did_you_mean(name: str, names: Any, least: float = 0.6) -> str:
    near = get_close_matches(name, list(names), n=1, cutoff=least)
    return f"; did you mean {near[0]}?" if near else ""


def _hint_setting(name: str, names: list[str], arguments: list[str]) -> str:
    """Return a hint on an option that is a key of the config, or a parameter of the task."""
    if not {"--set", "--param"} <= set(names):
        return ""
    from ..config.job import Job
    from ..config.key_hints import IN_A_JOB, find_sections, list_parameters

    words = [part for word in arguments for part in word.split("=", 1)]
    task = next((after for word, after in pairwise(words) if word == "--task"), None)
    key = name.lstrip("-").replace("-", "_")
    sections = find_sections(key, Job, list_parameters({"task": task}))
    ways = [
        f"--param {key}=…" if section == "parameters" else f"--set {section}.{key}=…"
        for section in sections
    ]
    if ways:
        return f"; did you mean {' or '.join(ways)}?"
    return f"; {IN_A_JOB[key]}" if key in IN_A_JOB else ""


def _choose_markup() -> Any:
    """Return how help is shown: with rich on a terminal, or as plain text."""
    return "rich" if is_terminal(sys.stdout) else None


def _write_panels(command: Any, ctx: Any, formatter: Any) -> None:
    """Write arguments and options by their panels, as rich does."""
    panels = defaultdict(list)
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is not None:
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels[getattr(parameter, "rich_help_panel", None) or default].append(record)
    for panel in sorted(panels, key=lambda name: name == "Options"):
        with formatter.section(panel):
            formatter.write_dl(panels[panel])
