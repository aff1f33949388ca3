"""The small files of a model, in a folder and in the cache of the Hub."""

from __future__ import annotations

import shutil

import pytest
from pipemill.actors.faults.load_errors import LoadError
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import hub_errors


def test_a_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "spiece.model").write_bytes(b"\n\x0e")
    files = ModelFiles(str(tmp_path))
    assert files.json("config.json") == {"model_type": "bert"}
    assert files.json("broken.json") == files.json("list.json") == files.json("none.json") == {}
    assert files.first_byte("spiece.model") == b"\n"
    assert files.first_byte("none.model") == b""
    assert "spiece.model" in files
    assert "tokenizer.json" not in files


def test_a_name_on_the_hub_without_a_way_there_is_read_from_the_cache(tmp_path, monkeypatch):
    commit = "0123456789" * 4
    folder = tmp_path / "models--mill--tiny" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "spiece.model").write_bytes(b"\n\x0e")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    files = ModelFiles("mill/tiny", commit)
    assert files.json("config.json") == {"model_type": "t5"}
    assert files.first_byte("spiece.model") == b"\n"
    assert "tokenizer.json" not in files
    assert "config.json" not in ModelFiles("mill/none", commit)
    # The Hub may have one, which is not the folder's fault.
    assert files.describe_tokenizer_files() is None


@pytest.mark.parametrize("status", [401, 500])
def test_a_file_that_the_hub_does_not_show_may_be_there(tmp_path, monkeypatch, status):
    commit = "0123456789" * 4
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_errors.answer(monkeypatch, status)
    files = ModelFiles("mill/tiny", commit)
    with pytest.raises(OSError):
        files.find("modules.json")
    # What the cache knows to be missing is missing.
    nothing = tmp_path / "models--mill--tiny" / ".no_exist" / commit / "modules.json"
    nothing.parent.mkdir(parents=True)
    nothing.touch()
    assert files.find("modules.json") is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{}", r'is not a tokenizer: it has no "model"'),
        ("tokenizer.json", '{"version": "1.0", "mod', r"is not JSON \(Unterminated string"),
        ("tokenizer.json", "", r"is not JSON \(Expecting value"),
        ("tokenizer.json", '{"model": {"type": "New"}}', r"can't be read by tokenizers .*untagged"),
        ("tokenizer_config.json", "[]", "is not a JSON object"),
    ],
)
def test_a_damaged_file_is_named_when_loading_fails(models, tmp_path, name, content, said):
    folder = shutil.copytree(models["text-classification"], tmp_path / "model")
    (folder / name).write_text(content)
    said = f"loading failed: {folder}/{name} {said}.*: copy or download it again"
    with pytest.raises(pipemill.ModelError, match=said):
        pipemill.run(
            task="text-classification",
            model=str(folder),
            input=[{"text": "a"}],
            output=str(tmp_path / "out"),
            actors={"placement": "local"},
        )


def test_files_that_make_no_tokenizer_are_named(models, tmp_path):
    folder = shutil.copytree(models["text-generation"], tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    said = r"no tokenizer.json, and .* of what is there \(tokenizer_config.json, vocab.json\)"
    with pytest.raises(LoadError, match=said):
        LoadTask(task="text-generation", model=Model(path=str(folder)), columns=()).loaded()


def test_a_damaged_generation_config_is_no_missing_one(models, tmp_path):
    folder = shutil.copytree(models["text-generation"], tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 5,')
    misfit = LoadTask(task="text-generation", model=Model(path=str(folder)), columns=())
    assert "generation_config.json is not JSON" in str(misfit.find_misfit())
