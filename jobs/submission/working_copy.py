"""Refuse paths in the copy of a working directory that Ray makes for a job."""

from __future__ import annotations

import os

from pipemill.actors.storage.filesystem import make_absolute

from pipemill.errors import ConfigError

# The folder of the copies that Ray makes of working directories (`ray job submit --working-dir`).
_WORKING_COPY = "/runtime_resources/working_dir_files/"


def check_output_lasts(path: str) -> None:
    """Raise ConfigError for an output in Ray's copy of the working directory.

    Ray makes the copy for a job, and deletes it afterwards.
    """
    if _is_in_copy(path):
        raise ConfigError(
            f"output.path {path} is {make_absolute(path)}, in the copy of the working directory "
            "that Ray made for this job and deletes after it: name an absolute path, or a URL that "
            "every node can reach"
        )


def check_input_stays(inputs: object) -> None:
    """Raise ConfigError for an input in Ray's copy of the working directory.

    After a change in the working directory the next job's copy lies elsewhere. The same file would
    then be taken for a new one, and its rows would be in the output twice.
    """
    paths = [inputs] if isinstance(inputs, str) else inputs if isinstance(inputs, list) else []
    for path in paths:
        if _is_in_copy(path):
            raise ConfigError(
                f"input.path {path} is {make_absolute(path)}, in the copy of the working directory "
                "that Ray made for this job. The next job's copy may lie elsewhere, and that job "
                "could not resume this output: name an absolute path, or a URL that every node "
                "can reach"
            )


def _is_in_copy(path: str) -> bool:
    copy = os.path.realpath(make_absolute(path)) if "://" not in path else path
    return _WORKING_COPY in f"{copy}/"
