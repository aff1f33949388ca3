"""The sections of a config as keyword arguments of the functions that take a job."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, cast

from pipemill.errors import ConfigError

from .key_errors import IN_PYTHON
from .names_elsewhere import advise_key

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars
    import pyarrow
    import pyarrow.dataset
    import ray.data

    # What holds rows; `jobs/rows/find_rows.py` recognizes it.
    Rows: TypeAlias = (
        Sequence[str]
        | Sequence[Mapping[str, object]]
        | Iterator[str]
        | Iterator[Mapping[str, object]]
        | pandas.DataFrame
        | pandas.Series
        | polars.DataFrame
        | polars.LazyFrame
        | pyarrow.Table
        | pyarrow.RecordBatch
        | pyarrow.RecordBatchReader
        | pyarrow.dataset.Dataset
        | datasets.Dataset
        | datasets.IterableDataset
        | ray.data.Dataset
    )


class _NotGiven:
    def __repr__(self) -> str:
        return "..."


Path = str | os.PathLike[str]
Verb = TypeVar("Verb", bound=Callable[..., Any])


class Sections(TypedDict, total=False):
    """The keys of a config. A path alone stands for `model`, `input` and `output`."""

    task: str
    tasks: Sequence[Mapping[str, Any]]
    model: Any  # a path, a mapping, or a `transformers.Pipeline`, which is not imported here
    input: "Path | Sequence[Path] | Rows | Mapping[str, Rows] | Mapping[str, Any]"
    output: Path | Mapping[str, Any]
    parameters: Mapping[str, Any]
    batching: Mapping[str, Any]
    actors: Mapping[str, Any]
    pipeline_class: str | type | None


def takes_sections(verb: Verb) -> Verb:
    """Show each section in the signature of a function, as `help` and notebooks print it.

    The function itself takes `**sections: Unpack[Sections]`: a section that is not given differs
    from one that is None. A wrong name is a ConfigError with the nearest of all names.
    """
    signature = inspect.signature(verb)
    *named, sections = signature.parameters.values()
    assert sections.kind is inspect.Parameter.VAR_KEYWORD
    shown = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_NotGiven(),
            annotation=getattr(kind, "__forward_arg__", kind),
        )
        for name, kind in Sections.__annotations__.items()
    ]
    names = [parameter.name for parameter in (*named, *shown)]

    @wraps(verb)
    def checked(*args: Any, **arguments: Any) -> Any:
        for name in arguments:
            if name not in names:
                hint = advise_key(name, names)
                raise ConfigError(f"unknown key {name!r} in {IN_PYTHON}; {hint}")
        return verb(*args, **arguments)

    checked.__signature__ = signature.replace(parameters=[*named, *shown])  # type: ignore[attr-defined]
    return cast(Verb, checked)
