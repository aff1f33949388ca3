"""What is read from transformers' source, against the classes themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pipemill.pipelines.loading.class_source import (
    find_class,
    find_class_in,
    find_module,
    find_transformers,
    list_arguments,
    read_mapping,
    read_names,
)
from pipemill.pipelines.loading.extras import is_installed

KINDS = ("tokenization", "feature_extraction", "processing")
MODULES = {"vision": "PIL", "protobuf": "google.protobuf", "mistral-common": "mistral_common"}


def decorated():
    """Kind and name of every class in transformers/models that a `@requires` stands on."""
    for kind in KINDS:
        for file in sorted((find_transformers() / "models").glob(f"*/{kind}_*.py")):
            text = file.read_text(encoding="utf-8")
            for name in re.findall(r"^@requires\(.*\)\n(?:@.*\n)*class (\w+)\(", text, re.M):
                if not name.startswith("Auto"):
                    yield kind, name


def test_decorated_classes_need_what_transformers_says_they_need():
    import transformers

    found = 0
    for kind, name in sorted(set(decorated())):
        real = getattr(transformers, name, None)
        source = find_class(name, kind)
        if real is None or source is None or source.node.name != name:
            continue
        lacking = {m for m in source.libraries(()) if not is_installed(m)}
        if not getattr(real, "is_dummy", False):
            assert not lacking, name
            continue
        said = {MODULES.get(b, b) for b in real._backends}
        assert {m for m in said if not is_installed(m)} == lacking, name
        found += bool(lacking)
    if not is_installed("sentencepiece"):
        assert found > 10


@pytest.mark.parametrize(
    ("name", "kind", "model_type", "modules"),
    [
        ("SiglipTokenizer", "tokenization", "siglip", {"sentencepiece", "google.protobuf"}),
        ("SpeechT5Tokenizer", "tokenization", "speecht5", {"sentencepiece"}),  # by its base, too
        ("XLMTokenizer", "tokenization", "xlm", {"sacremoses"}),
        ("BertweetTokenizer", "tokenization", "bertweet", set()),  # emoji, if it is there
        ("BertTokenizer", "tokenization", "bert", set()),
    ],
)
def test_what_a_class_asks_for(name, kind, model_type, modules):
    assert find_class(name, kind, model_type).libraries() == modules
    assert find_class(name, kind).libraries() == modules


def test_a_model_is_made_of_what_its_constructor_names():
    folder = find_transformers() / "models/mask2former"
    file = folder / "modeling_mask2former.py"
    whole = find_class_in(file, "Mask2FormerForUniversalSegmentation")
    assert {m for part in whole.made_of() for m in part.libraries()} == {"scipy"}
    alone = find_class_in(file, "Mask2FormerModel")
    assert not {m for part in alone.made_of() for m in part.libraries()}
    assert find_class_in(file, "NoSuchModel") is None
    assert find_class_in(Path("no/such/file.py"), "Mask2FormerModel") is None


def test_tables_are_those_of_transformers():
    from transformers.models.auto import tokenization_auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    tokenizers = read_mapping("tokenization_auto", "TOKENIZER_MAPPING_NAMES")
    # Which of these two it is hangs on a library; neither needs anything else.
    mistral = {"MistralCommonBackend", "TokenizersBackend"}
    known = {
        k: v
        for k, v in TOKENIZER_MAPPING_NAMES.items()
        if k in tokenizers and v not in {None, *mistral}
    }
    assert len(known) > 100
    assert {k: tokenizers[k] for k in known} == known
    wrong = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    assert read_names("tokenization_auto", "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS") == set(
        wrong
    )
    images = {
        **read_mapping("auto_mappings", "IMAGE_PROCESSOR_MAPPING_NAMES"),
        **read_mapping("image_processing_auto", "MISSING_IMAGE_PROCESSOR_MAPPING_NAMES"),
    }
    assert images == dict(IMAGE_PROCESSOR_MAPPING_NAMES)
    for kind in ("bert", "gpt-sw3", "layoutxlm", "mm-grounding-dino", "sam_hq_vision_model"):
        assert find_module(kind) == model_type_to_module_name(kind)


def test_arguments_of_a_processor():
    found = list_arguments(find_class("Qwen2VLProcessor", "processing", "qwen2_vl"))
    assert {"image_processor", "tokenizer", "video_processor"} <= found
