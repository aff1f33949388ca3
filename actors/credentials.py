"""Pass the credentials in the driver's environment to workers that lack them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "STORAGE_EMULATOR_HOST")
# Variables that only make sense on the driver's machine, or in its process.
_LOCAL = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONTAINER_", "AWS_EXECUTION_", "AWS_LAMBDA_")
# Variables that name a file, which a worker may have as well.
_FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE")
# A worker that has one variable of an identity keeps it: a mixture would be refused.
_IDENTITIES = (
    ("AWS_ACCESS_KEY", "AWS_SECRET_", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_",
     "AWS_WEB_IDENTITY_", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_"),
    ("AZURE_STORAGE_", "AZURE_CLIENT_", "AZURE_TENANT_"),
    ("GOOGLE_APPLICATION_CREDENTIALS",),
    ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)  # fmt: skip


@dataclass(frozen=True, repr=False)  # Ray logs its arguments
class Credentials:
    """Variables of the environment that a worker takes over when this is unpickled there.

    Not in a runtime environment: Ray writes that to its logs and shows it in the dashboard.
    """

    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_environment(cls) -> Credentials:
        """Return the credentials of this process."""
        return cls(tuple(sorted(i for i in os.environ.items() if _is_credential(i[0]))))

    def __repr__(self) -> str:
        return f"Credentials({', '.join(name for name, _ in self.variables)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_credentials, (self.variables,)


@dataclass(frozen=True)
class WithCredentials:
    """Loads a task in a worker. Unpickling this sets the credentials first."""

    load: Callable[[], Any]
    credentials: Credentials

    def __call__(self) -> Any:
        return self.load()


def _set_credentials(variables: tuple[tuple[str, str], ...]) -> Credentials:
    os.environ.update(find_missing_credentials(dict(variables), os.environ))
    return Credentials(variables)


def find_missing_credentials(
    variables: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that an environment lacks."""
    complete = [
        names for names in _IDENTITIES if any(name.startswith(names) for name in environment)
    ]
    return {
        name: value
        for name, value in variables.items()
        if name not in environment
        and not any(name.startswith(names) for names in complete)
        and (not _names_a_file(name) or os.path.exists(value))
    }


def _is_credential(name: str) -> bool:
    return (name.startswith(_PREFIXES) or name in _NAMES) and not name.startswith(_LOCAL)


def _names_a_file(name: str) -> bool:
    return name in _FILES or name.endswith("_FILE")
