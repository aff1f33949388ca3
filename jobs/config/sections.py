"""The sections of a config as keyword arguments of the functions that take a job."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar


class _NotGiven:
    def __repr__(self) -> str:
        return "..."


Path = str | os.PathLike[str]
Verb = TypeVar("Verb", bound=Callable[..., Any])


class Sections(TypedDict, total=False):
    """The keys of a config. A path alone stands for `model`, `input` and `output`."""

    task: str
    model: Path | Mapping[str, Any]
    input: Any  # a path, several, a mapping, or a `datasets.Dataset`, which may not be installed
    output: Path | Mapping[str, Any]
    parameters: Mapping[str, Any]
    batching: Mapping[str, Any]
    actors: Mapping[str, Any]
    pipeline_class: str | None


def takes_sections(verb: Verb) -> Verb:
    """Show each section in the signature of a function, as `help` and notebooks print it.

    The function itself takes `**sections: Unpack[Sections]`: a section that is not given differs
    from one that is None, and a wrong name gets the error of a wrong key.
    """
    signature = inspect.signature(verb)
    *named, sections = signature.parameters.values()
    assert sections.kind is inspect.Parameter.VAR_KEYWORD
    shown = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_NotGiven(), annotation=kind
        )
        for name, kind in Sections.__annotations__.items()
    ]
    verb.__signature__ = signature.replace(parameters=[*named, *shown])  # type: ignore[attr-defined]
    return verb
