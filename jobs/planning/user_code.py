"""Code that is not pipemill's: a pipeline class, a pipeline or a model in the model's folder.

Asked before anything is imported: what is wrong is said at once, and nothing runs that the job
does not allow.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import transformers_has_model

from pipemill.errors import ConfigError, did_you_mean

from ..config.job import Job


def check_class(name: str) -> None:
    """Raises ConfigError if there is no such module, or no such name in it."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute.isidentifier()):
        raise ConfigError(f"pipeline_class is package.module:Class, not {name!r}")
    source = _source(name)
    names = None if source is None else _names_in(source)
    if names is not None and attribute not in names:
        hint = did_you_mean(attribute, names)
        raise ConfigError(f"pipeline_class {name!r}: {source} has no {attribute!r}; {hint}")


def digest_class(name: str) -> str | None:
    """Of the module's source; another one is another job."""
    source = _source(name)
    return None if source is None else hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def has_remote_pipeline(job: Job, path: str) -> bool:
    """Whether the model's folder has a pipeline of its own for the job's task.

    Raises ConfigError if the folder's code is needed and model.trust_remote_code is off.
    """
    config = read_config(path, job.model.revision)
    own = (config.get("custom_pipelines") or {}).get(job.task)
    by_code = own is not None and job.pipeline_class is None
    if not job.model.trust_remote_code:
        if own is not None and by_code:
            _refuse(job, f"does {job.task} by code of its own ({own.get('impl')})")
        classes = sorted((config.get("auto_map") or {}).items())
        if classes and not transformers_has_model(str(config.get("model_type"))):
            _refuse(job, f"is of code of its own ({', '.join(str(code) for _, code in classes)})")
    return by_code


def _refuse(job: Job, what: str) -> None:
    raise ConfigError(
        f"the model {job.model.path} {what}: read that code, and set model.trust_remote_code to "
        "true to run it"
    )


def read_config(path: str, revision: str | None) -> dict[str, Any]:
    """Return the model's config.json, of a folder or of the local cache of the Hub.

    Raise ConfigError for one that is not a JSON object.
    """
    file = ModelFiles(path, revision).find_here("config.json")
    if file is None:
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file} holds no keys: it is not a model's")
    return config


def _source(name: str) -> Path | None:
    """The file of a class's module, if it has one. Raises ConfigError if there is no module."""
    module = name.partition(":")[0]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ConfigError(
            f"pipeline_class {name!r}: there is no module {module!r}, neither installed nor in "
            f"{os.getcwd()}"
        )
    return Path(found.origin) if found.origin and found.origin.endswith(".py") else None


def _names_in(source: Path) -> set[str] | None:
    """The names a module gives; None where only running it would tell."""
    try:
        tree = ast.parse(source.read_bytes())
    except SyntaxError as error:
        raise ConfigError(f"{source} is not Python: line {error.lineno}: {error.msg}") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names
