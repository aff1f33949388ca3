"""Tasks that transformers 5 removed, restored as pipelines that `transformers.pipeline` finds."""

from __future__ import annotations

from importlib import import_module

__all__ = ["restore_pipelines"]

# Each task with the place of its pipeline, and the classes that can load its model, best first.
_TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "conversational": (
        "conversational:ConversationalPipeline",
        ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM"),
    ),
    "image-to-image": ("image_to_image:ImageToImagePipeline", ("AutoModelForImageToImage",)),
    "image-to-text": ("image_to_text:ImageToTextPipeline", ("AutoModelForImageTextToText",)),
    "question-answering": (
        "question_answering:QuestionAnsweringPipeline",
        ("AutoModelForQuestionAnswering",),
    ),
    "summarization": (
        "text2text_generation:SummarizationPipeline",
        ("AutoModelForSeq2SeqLM",),
    ),
    "text2text-generation": (
        "text2text_generation:Text2TextGenerationPipeline",
        ("AutoModelForSeq2SeqLM",),
    ),
    "translation": ("translation:TranslationPipeline", ("AutoModelForSeq2SeqLM",)),
    "visual-question-answering": (
        "visual_question_answering:VisualQuestionAnsweringPipeline",
        ("AutoModelForVisualQuestionAnswering",),
    ),
}
# The pipelines' classes as "module:Class", to look them up without an import.
HOMES = {name: home for name, (home, _) in _TASKS.items()}
_ALIASES = {"vqa": "visual-question-answering"}


def restore_pipelines() -> list[str]:
    """Register every restored task that the installed transformers lacks.

    Afterwards `transformers.pipeline("question-answering", model=…)`, `"translation_en_to_de"`,
    `"vqa"` and the others work as they did in transformers 4.57. A task that transformers, or the
    user, has registered stays as it is.

    Returns:
        The names of the tasks that were registered: an empty list at the second call.
    """
    from transformers.pipelines import PIPELINE_REGISTRY

    from . import registration

    missing = [name for name in _TASKS if name not in PIPELINE_REGISTRY.supported_tasks]
    for name in missing:
        _register(name)
    for alias, name in _ALIASES.items():
        if name in missing:
            PIPELINE_REGISTRY.task_aliases.setdefault(alias, name)
    registration.allow_tasks([*missing, *(a for a, name in _ALIASES.items() if name in missing)])
    if "translation" in missing:
        registration.find_language_pairs(PIPELINE_REGISTRY)
    return missing


def _register(name: str) -> None:
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    home, models = _TASKS[name]
    module, attribute = home.split(":")
    pipeline_class = getattr(import_module(f"{__name__}.{module}"), attribute)
    PIPELINE_REGISTRY.register_pipeline(
        name,
        pipeline_class=pipeline_class,
        pt_model=tuple(getattr(transformers, model) for model in models),
        type="text",
    )
    # Set here, because `register_pipeline` takes no defaults per language pair, as translation has.
    if (default := getattr(pipeline_class, "default_model", None)) is not None:
        PIPELINE_REGISTRY.supported_tasks[name]["default"] = default
    # With this mark, `save_pretrained` would write the pipeline's code into the model's folder, and
    # the folder could then be loaded with `trust_remote_code` only.
    del pipeline_class._registered_impl
