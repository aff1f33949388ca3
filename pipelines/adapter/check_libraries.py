"""Check for the libraries of a task when it is loaded: without them every row would fail."""

from __future__ import annotations

import importlib

from pipemill.actors.task import Loaded

from .. import media
from ..loading.extras import advise_install, find_package
from ..pipeline_task import PipelineTask
from .row_values import list_media_kinds


def check_libraries(declared: PipelineTask, loaded: Loaded) -> None:
    """Raise MissingLibrary for a library that is needed, and what `MediaAccess.check` raises."""
    read = tuple(c for c in declared.inputs if c.required or c.name in loaded.columns)
    for kind in list_media_kinds(read):
        media.require_media_library(kind)
    if list_media_kinds(declared.inputs):  # a chat may show some, too
        loaded.media.check()
    for name in declared.libraries:
        try:
            importlib.import_module(name)
        except Exception as error:  # torchvision without its operators is a RuntimeError
            raise media.MissingLibrary(
                f"{declared.name} needs {find_package(name)}, which cannot be imported here "
                f"({error}); on every machine of the cluster: {advise_install([name])}"
            ) from error
