"""The tasks that transformers 5 removed, as pipelines that `transformers.pipeline` finds again."""

from __future__ import annotations

from importlib import import_module

__all__ = ["restore_pipelines"]

# A task, where its pipeline is, and the classes that can load its model, first choice first.
_TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "question-answering": (
        "question_answering:QuestionAnsweringPipeline",
        ("AutoModelForQuestionAnswering",),
    ),
}


def restore_pipelines() -> list[str]:
    """Register every restored task that the installed transformers lacks; returns their names.

    Afterwards `transformers.pipeline("question-answering", model=…)` works as it did in
    transformers 4.57. Calling it again does nothing and returns an empty list; a task that
    transformers, or the user, has registered is left as it is.
    """
    from transformers import pipelines

    missing = [name for name in _TASKS if name not in pipelines.PIPELINE_REGISTRY.supported_tasks]
    for name in missing:
        _register(name)
    return missing


def _register(name: str) -> None:
    import transformers
    from transformers import pipelines

    home, models = _TASKS[name]
    module, attribute = home.split(":")
    kind = getattr(import_module(f"{__name__}.{module}"), attribute)
    pipelines.PIPELINE_REGISTRY.register_pipeline(
        name,
        pipeline_class=kind,
        pt_model=tuple(getattr(transformers, model) for model in models),
        default=getattr(kind, "default_model", None),
    )
    # With this mark, `save_pretrained` would write the pipeline's code beside the weights, and the
    # folder could then be loaded with `trust_remote_code` only.
    del kind._registered_impl
    # transformers asks this table first, and refuses what is in it.
    getattr(pipelines, "REMOVED_TASKS", {}).pop(name, None)
