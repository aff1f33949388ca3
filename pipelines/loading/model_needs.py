"""Find the libraries that a task's pipeline and a model's folder need, beyond pipemill's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import restored
from .class_source import (
    ClassSource,
    find_class,
    find_class_in,
    find_module,
    find_transformers,
    list_arguments,
    read_mapping,
    read_names,
)
from .extras import is_installed
from .model_files import ModelFiles

Settings = Mapping[str, Any]

_GENERIC = ("TokenizersBackend", "PreTrainedTokenizer", "PythonBackend", "MistralCommonBackend")
_TIMM = ("timm_backbone", "timm_wrapper")
# What an image processor does with every picture.
_EVERY_PICTURE = ("__init__", "resize", "preprocess", "_preprocess")


@dataclass(frozen=True)
class Need:
    """A module that is needed, and what for: "to …" or "for …".

    instead: what transformers does without it; empty where it does nothing but raise.
    """

    module: str
    reason: str
    instead: str = ""


def needs_of_model(task: str, columns: set[str], files: ModelFiles) -> Iterator[Need]:
    """Yield what a task's pipeline needs with a model.

    columns: the task's columns that the job reads.
    """
    pipeline = _find_pipeline(task)
    if pipeline is None:  # another package's, of which nothing is known
        return
    for module in sorted(pipeline.libraries()):
        yield Need(module, f"for the pipeline {pipeline.node.name}")
    config = files.json("config.json")
    loads = _find_parts(pipeline, config, files)
    images = "image_processor" in loads
    document = task == "document-question-answering"
    if "tokenizer" in loads:
        yield from _needs_of_tokenizer(config, files)
    if "feature_extractor" in loads:
        yield from _needs_of_feature_extractor(config, files)
    if images or document:
        yield from _needs_of_image_processor(task, config, files, required=images)
    if pipeline.value("_load_processor"):
        yield from _needs_of_processor(config, files)
        if task == "any-to-any" and _list_modalities(config) & {"image", "video"}:
            for module in ("PIL", "torchvision"):
                yield Need(module, f"for the pipeline {pipeline.node.name} with images")
    if document and "words" not in columns and config.get("model_type") != "vision-encoder-decoder":
        for module in ("pytesseract", "tesseract"):
            yield Need(module, "to read the words in images, where no column `words` holds them")
    yield from _needs_of_weights(task, config, images)


def _find_pipeline(task: str) -> ClassSource | None:
    """Return the pipeline of a task: one that pipemill restores, or transformers' own."""
    task = "translation" if task.startswith("translation_") else task
    if task in restored.HOMES:
        module, name = restored.HOMES[task].split(":")
        return find_class_in(Path(restored.__file__).parent / f"{module}.py", name)
    root = find_transformers()
    table = root / "pipelines" / "__init__.py" if root else None
    if root is None or table is None or not table.is_file():
        return None
    entry = rf'^    "{re.escape(task)}": {{\s*"impl": "transformers\.pipelines\.(\w+)\.(\w+)"'
    found = re.search(entry, table.read_text(encoding="utf-8"), re.M)
    return find_class_in(root / "pipelines" / f"{found[1]}.py", found[2]) if found else None


def _find_parts(pipeline: ClassSource, config: Settings, files: ModelFiles) -> set[str]:
    """Return what the pipeline can't do without: what it loads if it can is left out."""
    parts = ("tokenizer", "image_processor", "feature_extractor")
    loads = {part for part in parts if pipeline.value(f"_load_{part}")}
    if pipeline.value("_load_processor"):
        processor = _find_processor(config, files)
        # Without one, transformers takes the tokenizer alone.
        loads |= list_arguments(processor) & set(parts) if processor else {"tokenizer"}
    return loads


def _needs_of_tokenizer(config: Settings, files: ModelFiles) -> Iterator[Need]:
    settings = files.json("tokenizer_config.json")
    name = _find_tokenizer_class(config, settings)
    if "auto_map" in settings or not name:
        return
    source = find_class(name, "tokenization", str(config.get("model_type") or ""))
    reason = f"for the tokenizer {name}"
    modules = source.libraries() if source else set()
    modules |= _needs_of_settings(name, settings)
    vocabulary = _find_vocabulary(source)
    if "sentencepiece" not in modules and "tokenizer.json" not in files and vocabulary in files:
        modules |= _needs_of_vocabulary(vocabulary, files)
        reason = f"to read {vocabulary} of the tokenizer {name}, which has no tokenizer.json"
    for module in sorted(modules):
        yield Need(module, reason)


def _find_tokenizer_class(config: Settings, settings: Settings) -> str:
    """Return the class that `AutoTokenizer` takes."""
    model_type = str(config.get("model_type") or "")
    registered = read_mapping("tokenization_auto", "TOKENIZER_MAPPING_NAMES").get(model_type)
    own = settings.get("tokenizer_class") or config.get("tokenizer_class")
    first, second = (str(name or "").removesuffix("Fast") for name in (own, registered))
    if first and second and first != second:
        wrong = read_names("tokenization_auto", "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS")
        return second if second in _GENERIC or model_type in wrong else first
    return first or second


def _needs_of_settings(name: str, settings: Settings) -> set[str]:
    """Return what a tokenizer needs only as it is set."""
    if name == "BertJapaneseTokenizer":
        return _needs_of_japanese(settings)
    if name == "VitsTokenizer" and settings.get("phonemize", True):
        return {"phonemizer", "espeak-ng"}
    return set()


def _needs_of_japanese(settings: Settings) -> set[str]:
    words = settings.get("word_tokenizer_type", "basic")
    needs: set[str] = set()
    if settings.get("do_word_tokenize", True):
        dictionary = (settings.get("mecab_kwargs") or {}).get("mecab_dic", "unidic_lite")
        needs |= {
            "mecab": {"fugashi", *([dictionary] if dictionary else [])},
            "sudachi": {"sudachipy"},
            "jumanpp": {"rhoknp"},
        }.get(words, set())
    if settings.get("subword_tokenizer_type") == "sentencepiece":
        needs.add("sentencepiece")
    return needs


def _find_vocabulary(source: ClassSource | None) -> str:
    """Return the file that a tokenizer reads where there is no tokenizer.json."""
    text = source.file.read_text(encoding="utf-8") if source else ""
    found = re.search(r'"vocab_file": "([^"]+)"', text)
    return found[1] if found else "tokenizer.model"


def _needs_of_vocabulary(name: str, files: ModelFiles) -> set[str]:
    if not name.endswith(".model"):
        return set()
    # sentencepiece's begins with a field of protobuf, tiktoken's with a token in base64.
    return {"sentencepiece", "google.protobuf"} if files.first_byte(name) == b"\n" else {"tiktoken"}


def _needs_of_feature_extractor(config: Settings, files: ModelFiles) -> Iterator[Need]:
    settings = _read_settings("feature_extractor", files)
    model_type = str(config.get("model_type") or "")
    name = settings.get("feature_extractor_type")
    name = name or _look_up_model_type(
        "feature_extraction_auto", "FEATURE_EXTRACTOR_MAPPING_NAMES", model_type
    )
    source = find_class(name, "feature_extraction", model_type) if isinstance(name, str) else None
    for module in sorted(source.libraries() if source and "auto_map" not in settings else ()):
        yield Need(module, f"for the feature extractor {name}")
    if str(settings.get("processor_class") or "").endswith("WithLM"):
        for module in ("kenlm", "pyctcdecode"):
            yield Need(
                module,
                "for the language model in the model's folder",
                instead="the texts are decoded without it, and differ",
            )


def _needs_of_image_processor(
    task: str, config: Settings, files: ModelFiles, *, required: bool
) -> Iterator[Need]:
    settings = _read_settings("image_processor", files)
    classes = _find_image_processors(config, settings)
    if "auto_map" in settings or not classes or not (required or settings):
        return
    # As `AutoImageProcessor` does: by torchvision where that is installed, else by Pillow.
    way = "torchvision" if is_installed("torchvision") or "pil" not in classes else "pil"
    name = classes.get(way) or next(iter(classes.values()))
    source = find_class(name, "image_processing", str(config.get("model_type") or ""))
    if source is None:
        return
    answers = f"post_process_{task.replace('-', '_')}"
    modules = source.libraries((*_EVERY_PICTURE, answers)) | {"PIL"}
    if way == "torchvision":
        modules.add("torchvision")
    if settings.get("apply_ocr", source.value("apply_ocr")):
        modules |= {"pytesseract", "tesseract"}
    for module in sorted(modules):
        yield Need(module, f"for the image processor {name}")


def _find_image_processors(config: Settings, settings: Settings) -> dict[str, str]:
    """Return the classes of an image processor by the library that they compute with."""
    old = str(settings.get("feature_extractor_type") or "")
    name = settings.get("image_processor_type") or old.replace("FeatureExtractor", "ImageProcessor")
    name = str(name or config.get("image_processor_type") or "").removesuffix("Fast")
    tables = [
        read_mapping("auto_mappings", "IMAGE_PROCESSOR_MAPPING_NAMES"),
        read_mapping("image_processing_auto", "MISSING_IMAGE_PROCESSOR_MAPPING_NAMES"),
    ]
    if not name:
        model_type = config.get("model_type")
        return next(
            (t[model_type] for t in reversed(tables) if isinstance(t.get(model_type), dict)), {}
        )
    known = (classes for table in tables for classes in table.values())
    return next((c for c in known if isinstance(c, dict) and name in c.values()), {})


def _needs_of_processor(config: Settings, files: ModelFiles) -> Iterator[Need]:
    source = _find_processor(config, files)
    if source is None:
        return
    modules = source.libraries()
    if "video_processor" in list_arguments(source):
        modules |= {"torchvision"}  # it is loaded for rows without a video, too
    for module in sorted(modules):
        yield Need(module, f"for the processor {source.node.name}")


def _find_processor(config: Settings, files: ModelFiles) -> ClassSource | None:
    places = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    settings = [files.json(place) for place in places]
    model_type = str(config.get("model_type") or "")
    if any("AutoProcessor" in (s.get("auto_map") or {}) for s in settings):
        return None
    name = next((s["processor_class"] for s in settings if s.get("processor_class")), None)
    name = name or _look_up_model_type("processing_auto", "PROCESSOR_MAPPING_NAMES", model_type)
    return find_class(name, "processing", model_type) if isinstance(name, str) else None


def _needs_of_weights(task: str, config: Settings, images: bool) -> Iterator[Need]:
    if _is_timm(config, nested=images):
        yield Need("timm", "for the model, which is made by timm")
    source = _find_model(task, config)
    if source is not None:
        modules = {m for part in source.made_of() for m in part.libraries()}
        for module in sorted(modules):
            yield Need(module, f"for the model {source.node.name}")


def _find_model(task: str, config: Settings) -> ClassSource | None:
    """Return the class of a model, where transformers has it."""
    root, model_type = find_transformers(), str(config.get("model_type") or "")
    if root is None or not model_type or "auto_map" in config:
        return None
    module = find_module(model_type)
    file = root / "models" / module / f"modeling_{module}.py"
    if not file.is_file() or "requires" not in file.read_text(encoding="utf-8"):
        return None
    names = config.get("architectures") or []
    if task.endswith("feature-extraction"):
        names = read_mapping("modeling_auto", "MODEL_MAPPING_NAMES").get(model_type) or []
        names = [names] if isinstance(names, str) else list(names)
    return find_class_in(file, str(names[0])) if names else None


def _list_modalities(config: Settings) -> set[str]:
    """Return what the model of any-to-any takes: "text", "image", …"""
    root, module = find_transformers(), find_module(str(config.get("model_type") or ""))
    names = config.get("architectures") or [""]
    if root is None or not module:
        return set()
    file = root / "models" / module / f"modeling_{module}.py"
    source = find_class_in(file, str(names[0]))
    value = source.value("input_modalities") if source else None
    return {value} if isinstance(value, str) else set(value or ())


def _is_timm(config: Settings, *, nested: bool) -> bool:
    model_type = str(config.get("model_type") or "")
    if model_type in _TIMM or (not model_type and "pretrained_cfg" in config):
        return True
    if nested and any(_names_timm(value) for value in config.values()):
        return True
    if config.get("backbone_config") is not None or config.get("backbone_kwargs"):
        return False
    root, module = find_transformers(), find_module(model_type)
    file = root / "models" / module / f"configuration_{module}.py" if root and module else None
    if file is None or not file.is_file() or not config.get("use_timm_backbone", True):
        return False
    # These models take timm's backbone if the configuration does not say.
    return 'pop("use_timm_backbone", True)' in file.read_text(encoding="utf-8")


def _names_timm(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("model_type") in _TIMM or any(_names_timm(v) for v in value.values())


def _read_settings(part: str, files: ModelFiles) -> Settings:
    """Return the settings of a part: of a processor's, or those that stand alone."""
    inside = files.json("processor_config.json").get(part)
    return inside if isinstance(inside, dict) else files.json("preprocessor_config.json")


def _look_up_model_type(file: str, name: str, model_type: str) -> Any:
    return read_mapping("auto_mappings", name).get(model_type) or read_mapping(
        file, f"MISSING_{name}"
    ).get(model_type)
