"""Build a job from a YAML file, flags and keyword arguments, or say what is wrong in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipemill.errors import ConfigError

from ..rows.find_rows import holds_rows
from ..rows.python_rows import RowList, are_texts
from .check_arguments import list_texts
from .job import InputSection, Job
from .key_errors import IN_PYTHON, explain_errors
from .loaded_model import with_loaded_model
from .settings import apply_settings, to_section
from .task_entry import OF_ONE_TASK, TaskEntry
from .yaml_text import read_mapping

# In the current folder, so that files that go next to the output go there.
NO_OUTPUT = ".pipemill-no-output"
# ${NAME} in a config, which the environment fills in.
VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the mapping in a YAML file, with ${NAME} replaced from the environment.

    Raises:
        ConfigError: for a file that can't be read or holds no mapping, and for a variable that is
            not set.
    """
    return map_texts(
        read_mapping(path),
        lambda text: VARIABLE.sub(lambda match: _read_variable(match[1], str(path)), text),
    )


def build_job(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None,
    settings: Iterable[str],
    columns: Mapping[str, str | None],
    sections: Mapping[str, Any],
    needs_output: bool = True,
) -> Job:
    """Build a job from a config, sections that override it, and settings that override both.

    Args:
        config: a YAML file, a mapping or a job; None for an empty config.
        settings: KEY.KEY=VALUE texts, whose values are YAML.
        columns: the data's column for each of the task's, added to those in `input.columns`.
        sections: the config's keys, with values that win over it.
        needs_output: whether the job must name an output. If not, `NO_OUTPUT` is the default.

    Raises:
        ConfigError: for keys and values that are wrong or missing.
    """
    settings = list_texts("settings", settings, "input.limit=20")
    if isinstance(config, Job) and not (settings or columns or sections):
        return config
    data, where = merge_config(config, settings, columns, sections)
    if not needs_output:
        data["output"] = {"path": NO_OUTPUT, **to_section("output", data.get("output"))}
    return make_job(data, where)


def merge_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None,
    settings: Iterable[str],
    columns: Mapping[str, str | None],
    sections: Mapping[str, Any],
    read: Callable[[str | os.PathLike[str]], dict[str, Any]] = read_config,
) -> tuple[dict[str, Any], str]:
    """Return the keys of a job as `build_job` merges them, and their source for messages.

    Args:
        read: reads a YAML file.
    """
    if isinstance(config, Job):
        data, where = _dump(config), IN_PYTHON
    elif config is None or isinstance(config, Mapping):
        data, where = _hold_list(config or {}), IN_PYTHON
    elif isinstance(config, str | os.PathLike):
        data, where = read(config), str(config)
    else:
        raise ConfigError(f"a job must be a YAML file, a mapping or a pipemill.Job, not {config!r}")
    if not isinstance(columns, Mapping):
        raise ConfigError(f"columns must map names to columns, not {columns!r}")
    data = _merge(data, _hold_texts(sections))
    if columns:
        data = _merge(data, {"input": {"columns": dict(columns)}})
    texts = list_texts("settings", settings, "input.limit=20")
    return apply_settings(data, texts), where


def _dump(job: Job) -> dict[str, Any]:
    """Return the keys of a job with the objects and options that a dump leaves out."""
    data = job.model_dump(exclude_unset=True)
    places: list[tuple[str, dict[str, Any], Job | TaskEntry]]
    places = [("input", data, job), ("output", data, job)]
    if job.tasks:  # of which the first gave the job its task
        places += [("model", *both) for both in zip(data["tasks"], job.tasks, strict=True)]
        data = {key: value for key, value in data.items() if key not in OF_ONE_TASK}
    else:
        places.append(("model", data, job))
    for part, keys, owner in places:
        section = getattr(owner, part)
        keys[part] |= {"path": section.path, "storage_options": section.storage_options}
    return data


def _hold_texts(sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sections; a list of strings that is no list of paths becomes rows."""
    given = sections.get("input")
    if not isinstance(given, list | tuple) or not given:
        return _hold_list(sections)
    is_rows = all(isinstance(value, str) for value in given) and are_texts(given)
    return {**sections, "input": RowList(given)} if is_rows else _hold_list(sections)


def _hold_list(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections; an input that is a list or a tuple becomes a list of texts or dicts.

    Raises ConfigError for an input that is neither, nor anything else that may be one.
    """
    given = sections.get("input")
    if isinstance(given, list | tuple):
        for number, value in enumerate(given):
            if not isinstance(given[0], Mapping) and not isinstance(value, str | os.PathLike):
                raise ConfigError(
                    f"input is a list whose item {number:,} is of the type {type(value).__name__}: "
                    "a list holds paths, texts, or rows, which are dicts: [{'COLUMN': one} for one "
                    "in …]"
                )
        texts = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in given]
        return {**sections, "input": texts}
    if isinstance(given, Mapping) and not holds_rows(given):
        is_section = given.keys() & InputSection.model_fields.keys()
        if not given and type(given) is not dict:
            raise ConfigError(f"input is a {type(given).__name__} that holds nothing")
        if given and not is_section and all(map(_is_column, given.values())):
            raise ConfigError(
                f"input is a dict of lists ({', '.join(map(str, given))}): give rows as a list of "
                "dicts, or as a frame, such as pandas.DataFrame(…)"
            )
    elif (
        isinstance(given, Iterable)
        and not isinstance(given, str | BaseModel)
        and not holds_rows(given)
    ):
        way = ".to_pylist()" if hasattr(given, "to_pylist") else "list(…)"
        raise ConfigError(f"input is a {type(given).__name__}: give rows as a list, {way}")
    return dict(sections)


def _is_column(value: object) -> bool:
    return isinstance(value, list | tuple) or (
        hasattr(value, "__array__") and hasattr(value, "__len__")
    )


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `more` over `base`, section by section. A path alone stands for a section."""
    merged = dict(base)
    for key, value in more.items():
        if key in ("model", "input", "output"):
            merged[key] = _merge_section(to_section(key, merged.get(key)), to_section(key, value))
        elif isinstance(value, Mapping):
            merged[key] = _merge_section(to_section(key, merged.get(key)), value)
        else:
            merged[key] = value
    return merged


def make_job(data: Mapping[str, Any], where: str) -> Job:
    """Validate a config to a job. `where` names its source in messages, such as a file.

    Raises:
        ConfigError: with a line for each key that is wrong.
    """
    try:
        return Job.model_validate(with_loaded_model(data))
    except ValidationError as error:
        raise ConfigError(explain_errors(error, Job, data, where)) from None


def _merge_section(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two sections: columns are added, any other value replaces the old one."""
    columns = [section.get("columns") or {} for section in (old, new)]
    if not all(isinstance(one, Mapping) for one in columns):  # which is told later
        return {**old, **new}
    both = {**columns[0], **columns[1]}
    return {**old, **new, **({"columns": both} if both else {})}


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of a config in which each text is changed, but no key."""
    if isinstance(value, dict):
        return {key: map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [map_texts(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def _read_variable(name: str, where: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"{where} uses ${{{name}}}, but the environment variable is not set")
    return os.environ[name]
