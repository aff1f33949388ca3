"""The libraries that decode media, and what is said where one is missing."""

from __future__ import annotations

import importlib

# The modules that decode a kind of media.
NEEDED = {
    "image": {"PIL": "pillow"},
    "audio": {"av": "av"},
    # Frames become images in the pipelines of transformers.
    "video": {"av": "av", "PIL": "pillow"},
}


class MissingLibrary(ImportError):
    """A library that this worker lacks: no row is to blame, and no other row would do better."""

    no_rows_fault = True


def require_media_library(kind: str) -> None:
    """Raises MissingLibrary unless media of a kind ("image", "audio", "video") can be decoded.

    A task's constructor calls this before it sees a row: raised in a row, an error would make a
    dead letter of each of them.
    """
    for module, package in NEEDED[kind].items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingLibrary(
                f"{package} is needed for columns of kind {kind!r} and cannot be imported here "
                f"({error}); on every machine of the cluster: pip install 'pipemill[media]'"
            ) from error
