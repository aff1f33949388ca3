"""Write a job as the YAML text that a cluster runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pipemill.actors.storage.filesystem import make_absolute

from pipemill.errors import ConfigError

from ..config.job import Job
from ..config.load import VARIABLE, make_job, map_texts
from ..config.loaded_model import LoadedModel
from ..config.settings import to_section

# Keys of storage options that hold what nobody else may read.
_SECRET = re.compile(r"key|secret|token|passw|credential|signature|sas|connection_string", re.I)
# Linux takes no longer command: 128 KiB, less what is around the config.
_MOST_BYTES = 120_000


@dataclass(frozen=True, kw_only=True)
class JobText:
    """A job to send.

    text: Its config as YAML. `${NAME}` is as it was: the cluster fills it in.
    output: Where the job writes.
    local_paths: The paths of this machine that it names.
    variables: The variables that the cluster must fill in.
    """

    text: str
    output: str
    local_paths: tuple[str, ...]
    variables: tuple[str, ...]


def write_job_text(config: dict[str, Any], where: str, environment: Mapping[str, str]) -> JobText:
    """Write a config for a cluster, with its local paths made absolute.

    Args:
        config: The keys of a job, whose `${NAME}` is not filled in.
        where: Its source, for messages.
        environment: The variables that are sent along.

    Raises:
        ConfigError: The job is wrong, or holds what can't be sent: rows that are in this process,
            or a secret.
    """
    known = {**os.environ, **environment}
    filled = map_texts(config, lambda text: VARIABLE.sub(lambda m: known.get(m[1], m[0]), text))
    job = make_job(filled, where)
    _check_input(job)
    if any(isinstance(one.model.path, LoadedModel) for one in job.each_task()):
        raise ConfigError(
            f"the model is {job.model.path}, in this process: save it where the cluster can read "
            "it (save_pretrained), and name that folder or URL"
        )
    sent = _expand_sections(config)
    local_paths = _make_paths_absolute(sent, job)
    models = [("model", keys["model"]) for keys in _list_tasks(sent)]
    for section, keys in (*models, ("input", sent["input"]), ("output", sent["output"])):
        _check_secrets(keys.get("storage_options") or {}, f"{section}.storage_options")
    try:
        text = yaml.safe_dump(sent, sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as error:
        raise ConfigError(
            f"{where} has a value that can't be written to a config: {error.args[-1]!r}"
        ) from None
    if len(text.encode()) > _MOST_BYTES:
        raise ConfigError(
            f"{where} has {len(text.encode()):,} bytes of YAML, and at most {_MOST_BYTES:,} can be "
            "submitted: put long lists into columns of the input"
        )
    return JobText(
        text=text,
        output=sent["output"]["path"],
        local_paths=local_paths,
        variables=tuple(n for n in dict.fromkeys(VARIABLE.findall(text)) if n not in environment),
    )


def _expand_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a job, or of one of its tasks, with its sections as mappings."""
    names = [name for name in ("model", "input", "output") if name in config]
    keys = {**config, **{name: to_section(name, config[name]) for name in names}}
    if config.get("tasks"):
        keys["tasks"] = [_expand_sections(entry) for entry in config["tasks"]]
    return keys


def _list_tasks(sent: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the keys of each task: the job's own, if it has only one."""
    return sent.get("tasks") or [sent]


def _make_paths_absolute(sent: dict[str, Any], job: Job) -> tuple[str, ...]:
    """Change the paths of a job's keys to what the cluster reads; return those of this machine."""
    local: list[str] = []

    def locate(path: str) -> str:
        return _locate(path, local)

    for one, keys in zip(job.each_task(), _list_tasks(sent), strict=True):
        for key in ("path", "adapter"):
            named = getattr(one.model, key)
            if named is not None and os.path.isdir(make_absolute(named)):  # otherwise a Hub name
                keys["model"][key] = locate(keys["model"][key])
    for section, key in (("input", "path"), ("input", "media_roots"), ("output", "path")):
        if (value := sent[section].get(key)) is not None:
            sent[section][key] = map_texts(value, locate)
    return tuple(dict.fromkeys(local))


def _check_input(job: Job) -> None:
    paths = [job.input.path] if isinstance(job.input.path, str) else job.input.path
    if not isinstance(paths, list) or "-" in paths:  # standard input
        raise ConfigError(
            "the input's rows are in this process, where the cluster can't read them: write them "
            "where every node finds them, and name these files"
        )


def _locate(path: str, local: list[str]) -> str:
    """Return a path as the cluster must read it, and add it to `local` if it is of this machine."""
    if path.startswith("${"):
        return path
    found = make_absolute(path)
    if "://" not in found:
        local.append(found)
    return found


def _check_secrets(options: Any, where: str) -> None:
    """Raise ConfigError for a secret in storage options: Ray would store and show it."""
    if not isinstance(options, Mapping):
        return
    for name, value in options.items():
        if isinstance(value, Mapping):
            _check_secrets(value, f"{where}.{name}")
        elif isinstance(value, str) and _SECRET.search(str(name)) and not VARIABLE.search(value):
            raise ConfigError(
                f"{where}.{name} can't be sent, because Ray shows the command of a job: write "
                "${NAME} there, and send the variable NAME with env (--env NAME), or set it on "
                "the cluster"
            )
