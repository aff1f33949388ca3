"""Credentials of the driver's environment, for workers that have none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "STORAGE_EMULATOR_HOST")
# They name what is on the driver's machine only, or is given to its process alone.
_LOCAL = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONTAINER_", "AWS_EXECUTION_", "AWS_LAMBDA_")
# They name a file, which a worker may have as well.
_FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE")
# Who somebody is: a worker that has one of these has them all, and mixed they would be refused.
_IDENTITIES = (
    ("AWS_ACCESS_KEY", "AWS_SECRET_", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_",
     "AWS_WEB_IDENTITY_", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_"),
    ("AZURE_STORAGE_", "AZURE_CLIENT_", "AZURE_TENANT_"),
    ("GOOGLE_APPLICATION_CREDENTIALS",),
    ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)  # fmt: skip


@dataclass(frozen=True, repr=False)  # Ray logs what it is given
class Credentials:
    """Variables of the environment that a worker takes over when this is unpickled there.

    Not in a runtime environment: Ray writes that to its logs and shows it in the dashboard.
    """

    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_environment(cls) -> Credentials:
        """Return those that this process has."""
        return cls(tuple(sorted(i for i in os.environ.items() if _is_credential(i[0]))))

    def __repr__(self) -> str:
        return f"Credentials({', '.join(name for name, _ in self.variables)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_credentials, (self.variables,)


@dataclass(frozen=True)
class WithCredentials:
    """Loads a task in a worker, which has the credentials as soon as it has this."""

    load: Callable[[], Any]
    credentials: Credentials

    def __call__(self) -> Any:
        return self.load()


def _set_credentials(variables: tuple[tuple[str, str], ...]) -> Credentials:
    os.environ.update(missing_credentials(dict(variables), os.environ))
    return Credentials(variables)


def missing_credentials(given: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return what an environment lacks of the given variables."""
    known = [names for names in _IDENTITIES if any(name.startswith(names) for name in there)]
    return {
        name: value
        for name, value in given.items()
        if name not in there
        and not any(name.startswith(names) for names in known)
        and (not _names_a_file(name) or os.path.exists(value))
    }


def _is_credential(name: str) -> bool:
    return (name.startswith(_PREFIXES) or name in _NAMES) and not name.startswith(_LOCAL)


def _names_a_file(name: str) -> bool:
    return name in _FILES or name.endswith("_FILE")
