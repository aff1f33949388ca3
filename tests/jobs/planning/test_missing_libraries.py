"""What a job needs and is not installed, against what transformers itself says without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.jobs.planning.missing_libraries import (
    _is_available,
    check_requirements,
    find_missing_libraries,
)
from pipemill.jobs.planning.resolve_task import resolve_task
from pipemill.pipelines.loading.extras import is_installed
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.media import NEEDED

import pipemill
from tests import conftest
from tests.support import tiny, without
from tests.support.made_media import picture, png

ROOT = Path(__file__).parent.parent.parent.parent
# A model of sentencepiece begins with the tag of its first field.
SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"


def job_of(task, model, **sections):
    sections = {"input": "in.parquet", "output": "out", **sections}
    return build_job({"task": task, "model": str(model), **sections}, [], {}, {})


def task_of(job):
    return resolve_task(job, ModelFiles(job.model.path))


def missing(task, model, columns=()):
    """The modules that a job is told it lacks."""
    needs = find_missing_libraries(task_of(job_of(task, model)), columns)
    return {need.module for need in needs}


def files(folder, **contents):
    """A folder of JSON files, and others as bytes: `config__json={}` is config.json."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))
    return folder


def tokenizer(folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def image_processor(folder):
    import transformers

    return transformers.AutoImageProcessor.from_pretrained(folder)


def processor(folder):
    import transformers

    return transformers.AutoProcessor.from_pretrained(folder)


def number_writer(folder):
    import transformers

    return transformers.SmolVLMProcessor(None, tiny.tokenizer(), None)


def feature_extractor(folder):
    import transformers

    return transformers.AutoFeatureExtractor.from_pretrained(folder)


def model(folder):
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return getattr(transformers, config.architectures[0])._from_config(config)


# Task, columns, files, the modules that are missing, how transformers says so.
CASES = {
    "a tokenizer that is sentencepiece's alone": (
        "translation",
        {
            "config__json": {"model_type": "marian"},
            "tokenizer_config__json": {"tokenizer_class": "MarianTokenizer"},
            "source__spm": SENTENCEPIECE,
            "target__spm": SENTENCEPIECE,
            "vocab__json": {"<unk>": 0, "</s>": 1, "<pad>": 2},
        },
        {"sentencepiece"},
        tokenizer,
    ),
    "a sentencepiece model without tokenizer.json": (
        "summarization",
        {
            "config__json": {"model_type": "t5"},
            "tokenizer_config__json": {"tokenizer_class": "T5Tokenizer"},
            "spiece__model": SENTENCEPIECE,
        },
        {"sentencepiece"},
        tokenizer,
    ),
    "a tiktoken model without tokenizer.json": (
        "text-generation",
        {
            "config__json": {"model_type": "llama"},
            "tokenizer_config__json": {"tokenizer_class": "PreTrainedTokenizerFast"},
            "tokenizer__model": b"IQ== 0\nIg== 1\n",
        },
        {"tiktoken"},
        tokenizer,
    ),
    "a tokenizer with sacremoses": (
        "fill-mask",
        {
            "config__json": {"model_type": "xlm"},
            "tokenizer_config__json": {"tokenizer_class": "XLMTokenizer"},
            "vocab__json": {"<unk>": 0},
            "merges__txt": b"#version\n",
        },
        {"sacremoses"},
        tokenizer,
    ),
    "Japanese words": (
        "token-classification",
        {
            "config__json": {"model_type": "bert"},
            "tokenizer_config__json": {
                "tokenizer_class": "BertJapaneseTokenizer",
                "word_tokenizer_type": "mecab",
                "mecab_kwargs": {"mecab_dic": "ipadic"},
            },
            "vocab__txt": b"[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\n",
        },
        {"fugashi", "ipadic"},
        tokenizer,
    ),
    "phonemes": (
        "text-to-audio",
        {
            "config__json": {"model_type": "vits"},
            "tokenizer_config__json": {"tokenizer_class": "VitsTokenizer"},
            "vocab__json": {"a": 0, "<unk>": 1, "<pad>": 2},
        },
        {"phonemizer", "espeak-ng"},
        lambda folder: tokenizer(folder)("a text"),
    ),
    "phonemes that are only spelt": (
        "automatic-speech-recognition",
        {
            "config__json": {"model_type": "wav2vec2"},
            "tokenizer_config__json": {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"},
            "vocab__json": {"<unk>": 0, "<pad>": 1, "<s>": 2, "</s>": 3},
        },
        set(),
        lambda folder: tokenizer(folder).decode([0]),
    ),
    "a feature extractor with torchaudio": (
        "automatic-speech-recognition",
        {
            "config__json": {"model_type": "granite_speech"},
            "preprocessor_config__json": {
                "feature_extractor_type": "GraniteSpeechFeatureExtractor"
            },
        },
        {"torchaudio"},
        feature_extractor,
    ),
    "a tokenizer that the task does not load": (
        "image-classification",
        {
            "config__json": {"model_type": "siglip", "architectures": ["SiglipModel"]},
            "preprocessor_config__json": {"image_processor_type": "SiglipImageProcessor"},
            "tokenizer_config__json": {"tokenizer_class": "SiglipTokenizer"},
            "spiece__model": SENTENCEPIECE,
        },
        set(),
        image_processor,
    ),
    "the same for one that does": (
        "zero-shot-image-classification",
        {
            "config__json": {"model_type": "siglip", "architectures": ["SiglipModel"]},
            "preprocessor_config__json": {"image_processor_type": "SiglipImageProcessor"},
            "tokenizer_config__json": {"tokenizer_class": "SiglipTokenizer"},
            "spiece__model": SENTENCEPIECE,
        },
        {"sentencepiece"},
        tokenizer,
    ),
    "an image processor by torchvision only": (
        "depth-estimation",
        {
            "config__json": {"model_type": "depth_pro"},
            "preprocessor_config__json": {"image_processor_type": "DepthProImageProcessorFast"},
        },
        {"torchvision"},
        image_processor,
    ),
    "an image processor that may be fast": (
        "object-detection",
        {
            "config__json": {"model_type": "yolos"},
            "preprocessor_config__json": {"image_processor_type": "YolosImageProcessorFast"},
        },
        set(),
        image_processor,
    ),
    "a processor with one for videos": (
        "image-text-to-text",
        {
            "config__json": {"model_type": "qwen2_vl"},
            "preprocessor_config__json": {
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2VLProcessor",
            },
        },
        {"torchvision"},
        processor,
    ),
    "a classifier of timm": (
        "image-classification",
        {
            "config__json": {
                "model_type": "timm_wrapper",
                "architecture": "resnet18",
                "architectures": ["TimmWrapperForImageClassification"],
                "pretrained_cfg": {"input_size": [3, 8, 8]},
            }
        },
        {"timm", "torchvision"},
        image_processor,
    ),
    "a backbone of timm, by default": (
        "object-detection",
        {
            "config__json": {"model_type": "detr", "architectures": ["DetrForObjectDetection"]},
            "preprocessor_config__json": {"image_processor_type": "DetrImageProcessor"},
        },
        {"timm"},
        model,
    ),
    "a backbone of timm, named": (
        "object-detection",
        {
            "config__json": {
                "model_type": "rt_detr",
                "architectures": ["RTDetrForObjectDetection"],
                "backbone_config": {"model_type": "timm_backbone", "backbone": "resnet18"},
            },
            "preprocessor_config__json": {"image_processor_type": "RTDetrImageProcessor"},
        },
        {"timm"},
        model,
    ),
    "a loss that scipy solves": (
        "image-segmentation",
        {
            "config__json": {
                "model_type": "mask2former",
                "architectures": ["Mask2FormerForUniversalSegmentation"],
            },
            "preprocessor_config__json": {"image_processor_type": "Mask2FormerImageProcessor"},
        },
        {"scipy"},
        model,
    ),
    "a processor that writes numbers in words": (
        "image-text-to-text",
        {
            "config__json": {"model_type": "smolvlm"},
            "preprocessor_config__json": {
                "image_processor_type": "SmolVLMImageProcessor",
                "processor_class": "SmolVLMProcessor",
            },
        },
        {"num2words", "torchvision"},
        number_writer,
    ),
    "attention that natten computes": (
        "image-classification",
        {
            "config__json": {
                "model_type": "dinat",
                "architectures": ["DinatForImageClassification"],
            },
            "preprocessor_config__json": {"image_processor_type": "ViTImageProcessor"},
        },
        {"natten"},
        model,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_transformers_can_not_load_is_named_beforehand(name, tmp_path, caplog):
    from transformers.utils import logging

    task, contents, expected, load = CASES[name]
    folder = files(tmp_path / "model", **contents)
    if found := {module for module in expected if _is_available(module)}:
        pytest.skip(f"{', '.join(found)} is installed here")
    assert missing(task, folder) == expected
    if not expected:
        load(folder)
        return
    logging.set_verbosity_warning()  # models that other tests have loaded made it less
    with pytest.raises(Exception) as raised:  # ImportError, ValueError, ModuleNotFoundError
        load(folder)
    said = f"{raised.value} {caplog.text}".lower()
    assert any(m.lower() in said for m in expected), said


@pytest.fixture
def lacks_vision(monkeypatch):
    for name in ("timm", "torchvision", "pytesseract"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("lacks_vision")
def test_a_message_names_library_reason_and_extra(tmp_path):
    task, contents, *_ = CASES["a classifier of timm"]
    folder = files(tmp_path / "model", **contents)
    with pytest.raises(pipemill.ConfigError) as raised:
        check_requirements(job_of(task, folder), task_of(job_of(task, folder)), (), "local")
    assert str(raised.value) == (
        "image-classification needs what is not installed here: timm, torchvision for the image "
        "processor TimmWrapperImageProcessor. On every machine of the cluster: pip install "
        "'pipemill[vision]'"
    )


@pytest.mark.usefixtures("lacks_vision")
def test_several_reasons_several_extras_and_what_has_none(tmp_path):
    folder = files(tmp_path / "model", config__json={"model_type": "layoutlm"})
    task, contents, *_ = CASES["attention that natten computes"]
    job = job_of("document-question-answering", folder)
    with pytest.raises(pipemill.ConfigError) as raised:
        check_requirements(job, task_of(job), (), "local")
    assert "the program tesseract to read the words in images" in str(raised.value)
    assert str(raised.value).endswith(
        "pip install 'pipemill[vision]'; apt-get install tesseract-ocr"
    )
    check_requirements(job, task_of(job), ("words", "boxes"), "local")
    natten = files(tmp_path / "natten", **contents)
    with pytest.raises(pipemill.ConfigError, match="pip install natten$"):
        check_requirements(job_of(task, natten), task_of(job_of(task, natten)), (), "local")


def test_the_library_that_phonemizer_speaks_by_is_named(tmp_path, monkeypatch):
    task, contents, *_ = CASES["phonemes"]
    folder = files(tmp_path / "model", **contents)
    monkeypatch.delenv("PHONEMIZER_ESPEAK_LIBRARY", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(pipemill.ConfigError) as raised:
        check_requirements(job_of(task, folder), task_of(job_of(task, folder)), (), "local")
    assert "the program espeak-ng" in str(raised.value)
    assert str(raised.value).endswith("apt-get install espeak-ng")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.1")
    assert "espeak-ng" not in missing(task, folder)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setenv("PHONEMIZER_ESPEAK_LIBRARY", "/opt/libespeak-ng.so")
    assert "espeak-ng" not in missing(task, folder)


@pytest.mark.parametrize("task", sorted({*conftest.MODELS, *conftest.BUILDERS}))
def test_no_model_is_refused_that_can_be_loaded(models, task):
    whole = task
    while task not in pipemill_tasks():
        task = task.rpartition("-")[0] or "automatic-speech-recognition"  # of whisper
    lacking = {
        "mask-generation": {"torchvision"},
        "document-question-answering": {"pytesseract", "tesseract"},
        "document-question-answering-donut": set(),
    }
    expected = lacking.get(whole, set())
    expected = {m for m in expected if not is_installed(m) and not shutil.which(m)}
    assert missing(task, models[whole]) == expected


def pipemill_tasks():
    from pipemill.pipelines.registry import task_names

    return task_names()


@pytest.mark.usefixtures("lacks_vision")
def test_a_cluster_that_runs_already_may_have_what_this_machine_lacks(tmp_path, monkeypatch):
    task, contents, *_ = CASES["a classifier of timm"]
    folder = files(tmp_path / "model", **contents)
    job = job_of(task, folder)
    # Other tests of this process may have a Ray, which a run would use.
    monkeypatch.setattr("pipemill.jobs.execution.ray_address.find_connected_ray", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    check_requirements(job, task_of(job), (), "fused")
    with pytest.raises(pipemill.ConfigError, match="timm"):
        check_requirements(job, task_of(job), (), "local")


def test_a_language_model_that_would_be_left_out_is_said_and_refuses_nothing(
    models, tmp_path, capsys
):
    task = "automatic-speech-recognition"
    folder = Path(shutil.copytree(models[task], tmp_path / "model"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["processor_class"] = "Wav2Vec2ProcessorWithLM"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    if is_installed("kenlm") and is_installed("pyctcdecode"):
        pytest.skip("kenlm and pyctcdecode are installed here")
    for _ in range(2):
        check_requirements(job_of(task, folder), task_of(job_of(task, folder)), (), "local")
    said = capsys.readouterr().err
    assert said.count("for the language model in the model's folder") == 1
    assert "pip install kenlm pyctcdecode. Without: the texts are decoded without it" in said


def test_a_media_task_without_its_extra_is_told_before_anything_is_imported(models, tmp_path):
    commands, lacking = [], []
    for task, column, library, verbs in (
        ("image-classification", "image", "pillow", ("run", "preview", "plan", "tune")),
        ("automatic-speech-recognition", "audio", "av", ("run",)),
        ("video-classification", "video", "av, pillow", ("run",)),
    ):
        pq.write_table(pa.table({column: [b"x"]}), tmp_path / f"{column}.parquet")
        words = ["--task", task, "--model", models[task], "--input", f"{column}.parquet"]
        commands += [[verb, *words, "--output", "out"] for verb in verbs]
        lacking += [f"{library} to read the column {column!r}" for _ in verbs]
    started = time.monotonic()
    done = without.run(("PIL", "av"), tmp_path, *commands)
    for (status, out, err), library in zip(done, lacking, strict=True):
        assert (status, out) == (2, ""), err
        assert f"needs what is not installed here: {library}" in err
        assert "pip install 'pipemill[media]'" in err
        assert "imported: []" in err
    assert time.monotonic() - started < 20  # a second, where nothing else runs
    assert not (tmp_path / "out").exists()


def test_a_finished_output_needs_no_library(models, tmp_path):
    pq.write_table(
        pa.table({"image": [png(picture(9, 9, seed)) for seed in (1, 2)]}), tmp_path / "in.parquet"
    )
    job = {
        "task": "image-classification",
        "model": models["image-classification"],
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
    }
    assert pipemill.run(job).done == 2
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    commands = (["run", "job.yaml"], ["verify", "out"], ["verify", "out", "--sample", "1"])
    run, verify, sample = without.run(("PIL", "av"), tmp_path, *commands)
    assert run[0] == 0, run
    assert json.loads(run[1].splitlines()[-1])["done"] == 2
    assert verify[0] == 0, verify
    assert sample[0] == 2
    assert "pip install 'pipemill[media]'" in sample[2]


def test_media_columns_need_their_library_if_a_job_reads_them(
    models, tmp_path, monkeypatch, capsys
):
    """Sound in a chat without its library ends the run, and is no row's fault."""
    chats = [
        [{"role": "user", "content": "no sound"}],
        [{"role": "user", "content": [{"type": "audio", "base64": "UklGRg=="}]}],
    ]
    for name, columns in {
        "texts": {"text": tiny.texts(2)},
        "sounds": {"text": tiny.texts(2), "audio": [b"x", b"y"]},
        "chats": {"messages": [json.dumps(chat) for chat in chats]},
    }.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")

    def words(verb, name):
        model = ["--task", "any-to-any", "--model", models["any-to-any"]]
        return [verb, *model, "--input", f"{name}.parquet"]

    local = ["--output", "a", "--set", "actors.placement=local"]
    # One Python for all: each imports torch anew.
    read, refused, *done = without.run(
        ("PIL", "av"),
        tmp_path,
        [*words("run", "texts"), "--output", "b", *local[2:]],
        [*words("run", "sounds"), "--output", "c"],
        [*words("run", "chats"), *local],
        words("preview", "chats"),
        words("plan", "chats"),
    )
    assert read[0] == 0, read
    assert json.loads(read[1].splitlines()[-1])["done"] == 2
    assert refused[0] == 2
    assert "av to read the column 'audio'" in refused[2]
    for status, _, err in done:
        assert status == 2, err
        assert "pipemill: av is needed" in err
        assert "pip install 'pipemill[media]'" in err
        assert "Traceback" not in err
    monkeypatch.chdir(tmp_path)
    main([*words("run", "chats"), *local])
    assert "2 rows" in capsys.readouterr().err, "with the library the same output goes on"


def test_without_pillow_restored_pipelines_and_workers_say_that_they_need_it(models):
    vilt = ROOT / "tests/references/models/vilt"
    bert = ROOT / "tests/references/models/question_answering_bert"
    code = f"""
from tests.support.without import hide
hide(["PIL", "av"])
import pipemill, transformers
print(sorted(pipemill.restore_pipelines()))
answer = transformers.pipeline("question-answering", model={str(bert)!r})
print(answer(question="who", context="Anna and Peter")["answer"])
for task, model in (("vqa", {str(vilt)!r}), ("image-to-image", {str(vilt.parent / "swin2sr")!r})):
    try:
        transformers.pipeline(task, model=model)
    except ImportError as error:
        print(error)
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
model = Model(path={models["image-classification"]!r})
try:
    LoadTask(task="image-classification", model=model, columns=(("image", "picture"),))()
except ImportError as error:
    print(type(error).__name__, error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "'visual-question-answering'" in done.stdout
    for name in ("VisualQuestionAnsweringPipeline", "ImageToImagePipeline"):
        assert f"{name} requires the PIL library" in done.stdout
    assert "pip install pillow" in done.stdout
    assert "MissingLibrary pillow is needed for columns of kind 'image'" in done.stdout
    assert "pip install 'pipemill[media]'" in done.stdout


def test_media_are_what_the_extra_brings():
    assert {m for modules in NEEDED.values() for m in modules} == {"PIL", "av"}
