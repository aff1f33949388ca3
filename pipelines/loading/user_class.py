"""Import the user's `transformers.Pipeline`, and tell transformers of its task."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any


def import_pipeline_class(name: str) -> Any:
    """Return the class of "package.module:Class", which may lie in the current folder.

    Raises:
        ImportError: there is no such module or class, or its import fails.
        TypeError: it is not a subclass of transformers.Pipeline.
    """
    from transformers import Pipeline

    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:
        raise ImportError(
            f"pipeline_class {name!r}: importing {module} raised {type(error).__name__}: {error}"
        ) from error
    if found is None:
        raise ImportError(f"pipeline_class {name!r}: {module} has no {attribute!r}")
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        raise TypeError(f"pipeline_class {name!r} is not a subclass of transformers.Pipeline")
    return found


def register_pipeline_class(task: str, pipeline_class: Any, path: str, **source: Any) -> None:
    """Tell transformers of a task that only the user's pipeline does.

    The class that the model's configuration names loads the model.
    """
    from transformers import AutoConfig
    from transformers.pipelines import PIPELINE_REGISTRY

    try:
        PIPELINE_REGISTRY.check_task(task)
    except KeyError:
        config = AutoConfig.from_pretrained(path, **source)
        PIPELINE_REGISTRY.register_pipeline(
            task, pipeline_class, pt_model=_list_model_classes(config) or None
        )
        # With this mark, `save_pretrained` would write the pipeline's code beside the weights.
        del pipeline_class._registered_impl


def _list_model_classes(config: Any) -> tuple[Any, ...]:
    import transformers

    remote = [name for name in getattr(config, "auto_map", None) or {} if "AutoModel" in name]
    names = remote or config.architectures or ["AutoModel"]
    return tuple(getattr(transformers, name) for name in names if hasattr(transformers, name))
