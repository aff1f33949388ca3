"""Restored tasks about images, against the answers of transformers 4.57.6; the names of all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pipemill.pipelines.restored import restore_pipelines

from tests.support.restored_cases import REFERENCES, cases, check, check_rows_differ
from tests.support.row_by_row import assert_rows, run

pytest.importorskip("PIL")

MODEL_OF = {
    "conversational": "llama",
    "image-to-image": "swin2sr",
    "image-to-text": "vit_gpt2",
    "summarization": "bart",
    "text2text-generation": "t5",
    "translation": "mbart",
    "translation_en_to_de": "t5",
    "visual-question-answering": "vilt",
    "vqa": "blip_vqa",
}


@pytest.fixture(scope="module", autouse=True)
def _restored():
    restore_pipelines()


@pytest.mark.parametrize(
    ("task", "case"), [*cases("image-to-text"), *cases("visual-question-answering")]
)
def test_answers_equal_those_of_4_57(task, case):
    check(task, case, lambda answer: answer)


@pytest.mark.parametrize(("task", "case"), cases("image-to-image"))
def test_images_equal_those_of_4_57(task, case):
    from PIL import Image

    from tests.references import answers

    if "answer" in case:
        expected = answers.with_images(case["answer"])
        several = isinstance(expected, list)
        case["answer"] = [Picture(Image.open(n)) for n in (expected if several else [expected])]
        check(task, case, lambda got: [Picture(i) for i in (got if several else [got])])
    else:
        check(task, case, lambda got: got)


class Picture:
    """An image, equal to another whose values are the same but for a rounded one here and there."""

    def __init__(self, image: Any) -> None:
        import numpy as np

        self.values = np.asarray(image).astype(int)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Picture)
        if self.values.shape != other.values.shape:
            return False
        apart = abs(self.values - other.values)
        return bool(apart.max() <= 1 and apart.mean() < 1e-3)


@pytest.mark.parametrize("task", ["image-to-text", "visual-question-answering", "image-to-image"])
def test_expected_answers_differ(task):
    check_rows_differ(task)


@pytest.mark.parametrize(
    ("task", "model"),
    [("image-to-text", "blip_caption"), ("image-to-text", "git"), ("image-to-image", "swin2sr")],
)
def test_a_batch_has_the_answers_of_its_rows(task, model):
    from PIL import Image

    from tests.references import answers

    pipe = answers.load(task, model, {})
    image = Image.open(answers.with_images("square.png"))
    images = [image.rotate(90 * turns) for turns in range(3)]
    called = {} if task == "image-to-image" else {"max_new_tokens": 6}
    in_batches, alone = (pipe(images, batch_size=size, **called) for size in (2, 1))
    if task == "image-to-image":
        in_batches, alone = [*map(Picture, in_batches)], [*map(Picture, alone)]
    assert in_batches == alone
    assert alone[0] != alone[1]


def test_questions_are_padded_as_asked():
    from tests.references import answers

    pipe = answers.load("vqa", "vilt", {})
    pair = answers.with_images({"image": "wide.png", "question": "red ?"})
    lengths = [
        pipe.preprocess(pair, padding=p)["input_ids"].shape[1] for p in (False, "max_length")
    ]
    assert lengths == [4, 32]


@pytest.mark.parametrize("task", MODEL_OF)
def test_every_name_has_its_pipeline(task):
    import transformers

    pipe = transformers.pipeline(task, model=str(REFERENCES / "models" / MODEL_OF[task]))
    assert type(pipe).__module__.startswith("pipemill.pipelines.restored.")
    assert pipe.task == task or task == "translation"


def test_restoring_again_does_nothing():
    from transformers import pipelines

    def state() -> tuple:
        registry = pipelines.PIPELINE_REGISTRY
        return (
            registry.check_task,
            pipelines._resolve_deprecated_task,
            dict(registry.supported_tasks),
        )

    before = state()
    assert restore_pipelines() == []
    assert state() == before
    assert set(MODEL_OF) - {"translation_en_to_de"} <= set(pipelines.get_supported_tasks())


def test_names_that_are_none_are_refused():
    import transformers

    for name in ("translation_en", "translation_en_to_de_now", "translation_en_in_de"):
        with pytest.raises(KeyError, match="translation_XX_to_YY"):
            transformers.pipeline(name)
    with pytest.raises(KeyError, match="Unknown task"):
        transformers.pipeline("summarisation")


def test_default_models_are_named_for_language_pairs():
    from transformers.pipelines import check_task
    from transformers.pipelines.base import get_default_model_and_revision

    name, task, languages = check_task("translation_en_to_fr")
    assert (name, languages) == ("translation", ("en", "fr"))
    assert get_default_model_and_revision(task, languages)[0] == "google-t5/t5-base"
    with pytest.raises(ValueError, match="default model"):
        get_default_model_and_revision(task, ("de", "en"))
    _, task, _ = check_task("image-to-text")
    assert get_default_model_and_revision(task, None)[0] == "ydshieh/vit-gpt2-coco-en"


def test_a_task_that_the_user_has_registered_is_left_alone(monkeypatch):
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY as REGISTRY

    monkeypatch.setattr(REGISTRY, "supported_tasks", {})
    REGISTRY.register_pipeline("summarization", transformers.TextGenerationPipeline)
    monkeypatch.delattr(transformers.TextGenerationPipeline, "_registered_impl")
    monkeypatch.setattr(REGISTRY, "check_task", REGISTRY.check_task)
    monkeypatch.setattr("transformers.pipelines._resolve_deprecated_task", str)
    assert "translation" in restore_pipelines()
    found = REGISTRY.supported_tasks["summarization"]["impl"]
    assert found is transformers.TextGenerationPipeline


def test_importing_the_table_imports_nothing_heavy():
    told = _python(
        "import sys, pipemill.pipelines.restored\n"
        "print(sorted({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    assert told.strip() == "[]"


def test_a_saved_pipeline_is_a_model_and_no_code(tmp_path):
    import transformers

    folder = str(REFERENCES / "models" / "vit_gpt2")
    transformers.pipeline("image-to-text", model=folder).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    again = transformers.pipeline("image-to-text", model=str(tmp_path), max_new_tokens=4)
    image = str(REFERENCES / "images" / "wide.png")
    assert again(image) == transformers.pipeline("image-to-text", folder)(image, max_new_tokens=4)


def _python(code: str) -> str:
    root = REFERENCES.parent.parent
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_git_needs_no_prompt():
    from tests.references import answers

    pipe = answers.load("image-to-text", "git", {})
    files = [answers.with_images(name) for name in ("square.png", "wide.png")]
    expected = [pipe(file, max_new_tokens=6)[0] for file in files]
    images = [Path(file).read_bytes() for file in files]
    model = str(REFERENCES / "models" / "git")
    batch = run("image-to-text", model, {"image": images}, {"max_new_tokens": 6})
    assert_rows(batch, expected, different=2)
