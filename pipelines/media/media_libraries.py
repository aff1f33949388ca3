"""The libraries that decode media."""

from __future__ import annotations

import importlib

# The modules that decode each kind of media column, with their packages.
NEEDED = {
    "image": {"PIL": "pillow"},
    "audio": {"av": "av"},
    # Frames become images in the pipelines of transformers.
    "video": {"av": "av", "PIL": "pillow"},
}


class MissingLibrary(ImportError):
    """A library is not installed on this worker: every row would fail, and no row is at fault."""

    no_rows_fault = True


def require_media_library(kind: str) -> None:
    """Check that media columns of a kind ("image", "audio", "video") can be decoded here.

    A task's constructor calls this before the first row: an error in a row would make a dead
    letter of every row.

    Raises:
        MissingLibrary: if a library is not installed, or fails to import.
    """
    for module, package in NEEDED[kind].items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingLibrary(
                f"{package} is needed for columns of kind {kind!r} and cannot be imported here "
                f"({error}); on every machine of the cluster: pip install 'pipemill[media]'"
            ) from error
