"""The small files of a model, in a folder and in the cache of the Hub."""

from __future__ import annotations

from pipemill.pipelines.loading.model_files import ModelFiles


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
