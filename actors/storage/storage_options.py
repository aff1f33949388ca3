"""Say which storage option is wrong, where a filesystem's library speaks of its arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from fsspec import get_filesystem_class

from pipemill.errors import did_you_mean, error_message

from .file_names import find_member

# What users of a filesystem never give.
_INNER = ("self", "asynchronous", "loop")
_NO_CREDENTIALS = (
    ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the job runs (`pipemill submit --env "
    "AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY` sends those of this shell), or storage_options"
)
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")


def explain_storage_error(error: BaseException, url: str, options: Mapping[str, Any]) -> str:
    """Return why a filesystem could not be used, and by which option, if it is one's fault."""
    plain = " ".join(f"{type(error).__name__}: {error_message(error)}".split())
    if type(error).__name__ == "NoCredentialsError":
        return plain + _NO_CREDENTIALS
    if not options or not isinstance(error, TypeError | AttributeError):
        return plain
    unknown = _UNKNOWN.search(plain)
    if unknown is None:
        return f"storage_options ({', '.join(options)}) has a value of a wrong type ({plain})"
    name = unknown[1]
    if name in options:
        hint = did_you_mean(name, _list_options(url))
        return f"storage_options has {name!r}, which {_find_protocol(url)}:// does not know; {hint}"
    for key, value in options.items():
        if isinstance(value, Mapping) and name in value:
            return (
                f"storage_options.{key} has {name!r}, which {_find_protocol(url)}:// does not know"
            )
    return plain


def _find_protocol(url: str) -> str:
    return find_member(url).partition("://")[0]


def _list_options(url: str) -> list[str]:
    taken = inspect.signature(get_filesystem_class(_find_protocol(url)).__init__).parameters
    more = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, one in taken.items() if one.kind not in more and name not in _INNER]
