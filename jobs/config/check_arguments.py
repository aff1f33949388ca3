"""Check the arguments of the functions in Python that no config has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pipemill.errors import ConfigError


def check_positive(**values: float) -> None:
    """Raise ConfigError for an argument that is not a number above 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{name} must be a number above 0, not {value!r}")


def check_price(value: float | None) -> None:
    """Raise ConfigError for a price that is neither None nor a number above 0."""
    if value is not None:
        check_positive(price_per_hour=value)
        if math.isinf(value):
            raise ConfigError(f"price_per_hour must be a number above 0, not {value!r}")


def check_count(least: int = 1, **values: int) -> None:
    """Raise ConfigError for an argument that is not a whole number of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")


def list_texts(name: str, values: Iterable[str] | None, example: str) -> list[str]:
    """Return an argument that is a list of texts, or None for none. Raises ConfigError."""
    if values is None:
        return []
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
        values = list(values)
        if all(isinstance(text, str) for text in values):
            return values
    raise ConfigError(f"{name} must be a list of texts, such as [{example!r}], not {values!r}")


def check_options(name: str, options: Any) -> dict[str, Any]:
    """Return options of a filesystem, by their names. Raises ConfigError."""
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(
            f"{name} must map names of options to values, as in {{'anon': True}}; it is a "
            f"{type(options).__name__}"  # not its value: it may hold a secret
        )
    return dict(options)


def check_on_changed(value: object) -> None:
    """Raise ConfigError for what can't become of input files that changed."""
    if value not in (choices := ("error", "reprocess")):
        raise ConfigError(f"on_changed must be one of {', '.join(choices)}, not {value!r}")
