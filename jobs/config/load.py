"""From a YAML file, flags or keyword arguments to a Job, or to a message on what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipemill.errors import ConfigError, did_you_mean

from .hf_dataset import is_dataset
from .job import Job

# A place in the current folder, so that what belongs beside the output goes there.
NO_OUTPUT = ".pipemill-no-output"
_LONGEST = 200  # characters of a value in a message


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file, with ${NAME} replaced from the environment."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a config: it is not text") from None
    except ValueError as error:
        raise ConfigError(f"can't read the config {str(path)!r}: {error}") from None
    data = _loaded(text, f"{path} is not YAML")
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys such as task, model, input and output")
    return _from_environment(data, str(path))


def override(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Applies KEY.KEY=VALUE settings, whose values are YAML."""
    for setting in settings:
        keys, value = assignment(setting)
        place = data
        *parents, last = keys.split(".")
        for key in parents:
            inner = place.get(key)
            place[key] = inner = _section(key, inner)
            place = inner
        place[last] = value
    return data


def assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value read as YAML."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{text!r} is not of the form NAME=VALUE")
    return name, _loaded(value, f"the value of {name!r} is not YAML: {value!r}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML itself would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _loaded(text: str, problem: str) -> Any:
    """What a YAML text holds. Raises ConfigError in one line."""
    try:
        data = yaml.load(text, _Loader)
        _walk(data)
    except RecursionError:
        raise ConfigError(f"{problem}: it is nested too deeply, or holds itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{problem} ({error.problem or error.context}{place})") from None
    except Exception as error:  # a date or a number that there is not
        raise ConfigError(f"{problem} ({' '.join(str(error).split())})") from None
    return data


def _walk(value: Any) -> None:
    """Raises RecursionError for what holds itself."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _walk(inner)


def build_job(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None,
    settings: Iterable[str],
    columns: Mapping[str, str | None],
    sections: Mapping[str, Any],
    needs_output: bool = True,
) -> Job:
    """One job from its config, the sections that override it, and the settings over both.

    needs_output: False for what leaves the output alone; without one it stands for `NO_OUTPUT`.
    """
    if isinstance(config, Job):
        if not (settings or columns or sections):
            return config
        data = config.model_dump(exclude_unset=True)
        data["input"]["path"] = config.input.path  # a dataset is only described in the dump
        for part in ("input", "output"):
            data[part]["storage_options"] = getattr(config, part).storage_options
        where = "the job"
    elif config is None or isinstance(config, Mapping):
        data, where = dict(config or {}), "the job"
    elif isinstance(config, str | os.PathLike):
        data, where = read_config(config), str(config)
    else:
        raise ConfigError(f"a job is a YAML file, a mapping or a pipemill.Job, not {config!r}")
    if not isinstance(columns, Mapping):
        raise ConfigError(f"columns must map names to columns, not {columns!r}")
    data = _merge(data, sections)
    if columns:
        data = _merge(data, {"input": {"columns": dict(columns)}})
    data = override(data, settings)
    if not needs_output:
        data["output"] = {"path": NO_OUTPUT, **_section("output", data.get("output"))}
    return make_job(data, where)


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` over `base`, section by section; a path alone stands for a section."""
    merged = dict(base)
    for key, value in more.items():
        if key in ("model", "input", "output"):
            merged[key] = _over(_section(key, merged.get(key)), _section(key, value))
        elif isinstance(value, Mapping):
            merged[key] = _over(_section(key, merged.get(key)), value)
        else:
            merged[key] = value
    return merged


def make_job(data: Mapping[str, Any], where: str) -> Job:
    """Checks every key. `where` names the source in messages: a file, or "the arguments"."""
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error, where))) from None


def _over(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Columns are added to those there are; any other value replaces the old one."""
    columns = {**(old.get("columns") or {}), **(new.get("columns") or {})}
    return {**old, **new, **({"columns": columns} if columns else {})}


def _section(key: str, value: Any) -> dict[str, Any]:
    if key == "input" and is_dataset(value):
        return {"path": value}
    if key in ("model", "input", "output") and isinstance(value, str | list | os.PathLike):
        return {"path": os.fspath(value) if isinstance(value, os.PathLike) else value}
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{key!r} must hold keys, not {value!r}")
    return dict(value or {})


def _messages(error: ValidationError, where: str) -> list[str]:
    """One for each key: of a union, pydantic tells what each of its branches would take."""
    messages: dict[str, str] = {}
    missing: list[str] = []
    wanted: dict[str, list[str]] = {}
    for problem in error.errors():
        *parents, last = problem["loc"]
        # Of a union pydantic also names the branch it tried, which is no key.
        keys = [str(key) for key in parents if key in _all_keys()]
        if problem["type"] == "invalid_key" or last == "[key]":
            key = parents[-1] if last == "[key]" else last
            inside = f" of {'.'.join(keys)!r}" if keys else ""
            messages[f"{keys}{key}"] = (
                f"the key {key!r}{inside} in {where} is not a text: put it in quotes"
            )
            continue
        if problem["type"] == "extra_forbidden":
            full = ".".join([*keys, str(last)])
            hint = did_you_mean(str(last), _keys(keys))
            messages[full] = f"unknown key {full!r} in {where}; {hint}"
            continue
        full = ".".join([*keys, *([str(last)] if last in _all_keys() else [])])
        if problem["type"] == "missing":
            missing.append(repr(full))
            continue
        reason = problem["msg"].removeprefix("Value error, ")
        reasons = wanted.setdefault(full, [])
        if reasons:
            reason = reason.removeprefix("Input should be ")
        if reason not in reasons:
            reasons.append(reason)
        given = _short(problem["input"])
        messages[full] = f"{full!r} in {where}: {', or '.join(reasons)} (it is {given})"
    if missing:
        are = "is" if len(missing) == 1 else "are"
        return [f"{', '.join(missing)} {are} missing in {where}", *messages.values()]
    return list(messages.values())


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _keys(parents: list[str]) -> list[str]:
    model: type[BaseModel] = Job
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)


def _all_keys() -> set[str]:
    plain = ("task", "parameters", "pipeline_class")
    sections = [name for name in Job.model_fields if name not in plain]
    return set(Job.model_fields).union(*(_keys([section]) for section in sections))


def _from_environment(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _from_environment(inner, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_from_environment(inner, where) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: _variable(match[1], where), value)
    return value


def _variable(name: str, where: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"{where} uses ${{{name}}}, but no such environment variable is set")
    return os.environ[name]
