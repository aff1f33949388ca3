"""What a task needs that pipemill does not install: said when it is loaded, not by every row."""

from __future__ import annotations

import importlib

from pipemill.actors.task import Loaded

from . import media
from .declared import PipelineTask
from .row_values import media_kinds


def check_libraries(declared: PipelineTask, loaded: Loaded) -> None:
    """Raises MissingLibrary for what every row would miss, and what `MediaAccess.check` does."""
    kinds = media_kinds(declared.inputs)
    for kind in kinds:
        media.require(kind)
    if kinds:
        loaded.media.check()
    for name in declared.libraries:
        try:
            importlib.import_module(name)
        except Exception as error:  # torchvision without its operators is a RuntimeError
            package = name.partition(".")[0]
            raise media.MissingLibrary(
                f"{declared.name} needs {package}, which cannot be imported here ({error}); on "
                f"every machine of the cluster: pip install {package}"
            ) from error
