"""Read YAML, or say in one line what is wrong with it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from pipemill.errors import ConfigError

_MOST_VALUES = 1_000_000


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the mapping in a YAML file, as it is written."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except IsADirectoryError:
        raise ConfigError(
            f"can't read the config {path}: it is a folder; name the YAML file of the job, not its "
            "output"
        ) from None
    except OSError as error:
        raise ConfigError(f"can't read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a config: it is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"can't read the config {str(path)!r}: {error}") from None
    data = parse_yaml(text, f"{path} is not YAML")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} is not a config: it must be YAML with keys such as task:, model:, input: and "
            "output:"
        )
    return data


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses a repeated key; YAML itself would take the last one.

    1e-3 is a number, as in YAML 1.2. 12e4 stays a text: it may be the hash of a commit.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+[eE][-+][0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, problem: str) -> Any:
    """Parse YAML. Raise ConfigError, in one line that begins with `problem`."""
    try:
        data = yaml.load(text, _Loader)
        _check_size(data)
    except RecursionError:
        raise ConfigError(f"{problem}: it is nested too deeply, or contains itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{problem} ({error.problem or error.context}{where})") from None
    except Exception as error:  # a date or a number that does not exist
        raise ConfigError(f"{problem} ({' '.join(str(error).split())})") from None
    return data


def _check_size(value: Any, count: int = 0) -> int:
    """Return how many values there are, with `count` before them.

    Raises:
        RecursionError: a value contains itself.
        ValueError: there are too many. Anchors of a few lines may stand for billions.
    """
    count += 1
    if count > _MOST_VALUES:
        raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            count = _check_size(inner, count)
    return count
