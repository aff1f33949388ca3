"""Models that can't be loaded, as transformers says it: in one line, and whether it lasts."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import shutil
import socket

import pytest
from pipemill.actors.faults.load_errors import LoadError, describe_load_error, is_permanent
from pipemill.pipelines.loading.model import Model

from pipemill.errors import StoreError


def failure(folder, task="text-classification"):
    with pytest.raises(Exception) as error:
        Model(path=str(folder)).load(task)
    return error.value


@pytest.fixture
def copy(models, tmp_path):
    return shutil.copytree(models["text-classification"], tmp_path / "copy")


def change(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def weights(folder):
    return folder / "model.safetensors"


BROKEN = {
    "no weights": (lambda f: weights(f).unlink(), "OSError: Error no file named model.safetensors"),
    "cut off": (lambda f: weights(f).write_bytes(weights(f).read_bytes()[:999]), "SafetensorError"),
    "a pointer": (lambda f: weights(f).write_text("version https://git-lfs"), "SafetensorError"),
    "other shapes": (lambda f: change(f, hidden_size=64), "RuntimeError: You set"),
    "no architecture": (lambda f: change(f, model_type="nope"), "ValueError: The checkpoint you"),
    "a wrong type": (lambda f: change(f, hidden_size="x"), "StrictDataclassFieldValidationError"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_one_line_and_lasts(copy, how):
    breaks, message = BROKEN[how]
    breaks(copy)
    error = failure(copy)
    line = describe_load_error(error)
    assert message in line
    assert "\n" not in line
    assert "Traceback" not in line
    assert is_permanent(error)


def test_what_passes_is_told_from_what_lasts(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as server:  # a Hub that hangs up
        port = server.getsockname()[1]
    hub = f"http://127.0.0.1:{port}"
    with pytest.raises(OSError) as away:
        huggingface_hub.hf_hub_download("a/b", "x", endpoint=hub, etag_timeout=1)
    assert not is_permanent(away.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError) as offline:
        huggingface_hub.hf_hub_download("a/b", "x")
    assert is_permanent(offline.value), "as long as nothing may be downloaded"


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (MemoryError(), False),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (StoreError("s3://b can't be reached"), False),
        (OSError(28, os.strerror(28)), False),
        (TimeoutError("timed out"), False),
        (PermissionError(13, "Permission denied", "config.json"), True),
        (FileNotFoundError(2, "No such file", "config.json"), True),
        (RuntimeError("actors.num_gpus is 1, but torch finds no GPU on this worker"), True),
        (ModuleNotFoundError("No module named 'timm'"), True),
        (TypeError("an unexpected keyword"), True),
    ],
)
def test_which_errors_last(error, lasts):
    assert is_permanent(error) is lasts
    outer = ValueError("it can't be loaded")
    outer.__cause__ = error
    assert is_permanent(outer) is lasts


def test_what_transformers_quotes_counts_too():
    quoted = (
        "Could not load model x with any of the following classes: (…). See the errors:\n\n"
        "while loading with AutoModel, an error is thrown:\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in f\n    g()\n    ^^^\n  File "b.py", line 2, in g\n'
        "{}\n\nDuring handling of the above exception, another exception occurred:\n"
    )
    memory = ValueError(quoted.format("RuntimeError: not enough memory: you tried to allocate"))
    assert describe_load_error(memory) == "RuntimeError: not enough memory: you tried to allocate"
    assert not is_permanent(memory)
    missing = ValueError(quoted.format("OSError: no file named model.safetensors"))
    assert describe_load_error(missing) == "OSError: no file named model.safetensors"
    assert is_permanent(missing)


def test_the_names_of_all_types_are_left_out(tmp_path):
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Nope"}')
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError) as error:
        AutoImageProcessor.from_pretrained(tmp_path)
    assert "convnext" in str(error.value)
    line = describe_load_error(error.value)
    assert line.endswith(
        "in its preprocessor_config.json of config.json that this transformers knows"
    )


def test_it_survives_the_way_from_a_worker():
    for lasts in (True, False):
        there = pickle.loads(pickle.dumps(LoadError("why", for_good=lasts)))
        assert (str(there), there.for_good) == ("why", lasts)


def test_a_library_of_another_build_is_told():
    """As torchaudio's, made for CUDA, beside a torch for CPUs."""
    with pytest.raises(OSError) as error:
        ctypes.CDLL("libtorch_of_another_build.so")
    advice = "install torch, torchvision and torchaudio from one index"
    assert advice in str(LoadError.of(error.value))
    system = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    assert advice not in str(LoadError.of(system))
