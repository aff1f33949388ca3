"""A model that can't be loaded, or does not fit the task, is refused before a run begins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from pipemill.jobs.planning import find_model
from pipemill.pipelines.loading import model_fit
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.model_fit import find_misfit
from pipemill.pipelines.registry import find_task
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import pipemill
from tests.support import hub_errors, light, tiny
from tests.support.hub_server import hub


@pytest.fixture
def folder(models, tmp_path):
    return Path(shutil.copytree(models["text-classification"], tmp_path / "model"))


PARAMETERS = {
    "question-answering": {"question": "who?"},
    "zero-shot-classification": {"candidate_labels": ["a", "b"]},
}


def run(tmp_path, model, task="text-classification", column="text", **more):
    if not (tmp_path / "in.parquet").exists():
        pq.write_table(pa.table({column: ["a mill", "the red river"]}), tmp_path / "in.parquet")
    return pipemill.run(
        task=task,
        model={"path": str(model), **more},
        input=str(tmp_path / "in.parquet"),
        output=str(tmp_path / "out"),
        actors={"placement": "local"},
        parameters=PARAMETERS.get(task, {}),
    )


def cut_off(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_header(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:60])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def only_onnx(folder):
    no_weights(folder)
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"x")


def pointer(folder):
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n"
    )


def pointer_for_words(folder):
    (folder / "tokenizer.json").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 466062\n"
    )


def sharded(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    no_weights(folder)
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def missing_shard(folder):
    sharded(folder)
    min(folder.glob("model-*.safetensors")).unlink()


def broken_index(folder):
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def web_page(folder):
    (folder / "model.safetensors").write_text("<!DOCTYPE html><title>404</title>" * 100)


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "bert",')


def listed_config(folder):
    (folder / "config.json").write_text("[1, 2]")


def adapter(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def quantized(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))


def quantized_by_quanto(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "quanto", "weights": "int8"}
    (folder / "config.json").write_text(json.dumps(config))


def text_as_length(folder):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": "32"}))


def odd_dtype(folder):
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = "auto"
    (folder / "config.json").write_text(json.dumps(config))


def trainers_folder(folder):
    inner = folder / "checkpoint-500"
    inner.mkdir()
    for file in filter(Path.is_file, list(folder.iterdir())):
        file.rename(inner / file.name)


def only_gguf(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "llama-q4.gguf").write_bytes(b"GGUF")


def diffusion(folder):
    only_gguf(folder)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae").mkdir()
    (folder / "vae/config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, r"model\.safetensors is cut off: it has [\d,]+ bytes, and its header says"),
        (cut_in_header, r"model\.safetensors \(60 bytes\) is not a safetensors file, or is cut"),
        (web_page, r"model\.safetensors .*is not a safetensors file"),
        (no_weights, r"model holds no weights \(looked for model\.safetensors.*it has config\.js"),
        (only_onnx, r"no weights.*only onnx/model\.onnx \(ONNX\), which pipemill can't run"),
        (pointer, r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
        (pointer_for_words, r"tokenizer\.json is a Git LFS pointer.*git lfs pull"),
        (missing_shard, r"1 of \d+ weight files that .*index\.json lists are missing \(model-0"),
        (broken_index, r"index\.json is not an index of shards"),
        (broken_config, r"config\.json is not JSON"),
        (listed_config, r"config\.json is not a JSON object"),
        (odd_dtype, r"config\.json: torch_dtype is 'auto', which torch does not have"),
        (trainers_folder, r"config\.json is not there; name the folder that holds it: .*/check"),
        (only_gguf, r"config\.json is not there; it has llama-q4\.gguf \(GGUF \(llama\.cpp\)\)"),
        (diffusion, r"not there; with model_index\.json it is a diffusers pipeline, which pipem"),
        (adapter, r"it is a PEFT adapter of org/base, not a model: merge the two"),
        (
            text_as_length,
            r"tokenizer_config\.json in .* has a model_max_length of '32': it must be",
        ),
        (
            quantized_by_quanto,
            r"and optimum\.quanto can't be imported.* accelerate optimum-quanto;",
        ),
        (quantized, r"quantized with awq.*accelerate and gptqmodel can't be imported here.*pip in"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_cannot_be_loaded_are_named(folder, tmp_path, monkeypatch, damage, said):
    damage(folder)
    for name in ("accelerate", "gptqmodel", "optimum", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(pipemill.ConfigError, match=said):
        run(tmp_path, folder)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_named(folder, tmp_path):
    with pytest.raises(
        pipemill.ConfigError, match=r"model\.safetensors is a file: name the folder"
    ):
        run(tmp_path, folder / "model.safetensors")


@pytest.mark.parametrize("path", ["hf://org/m", "https://huggingface.co/org/m/tree/main"])
def test_the_address_of_a_model_on_the_hub_is_no_folder(path, tmp_path):
    with pytest.raises(pipemill.ConfigError, match=r"by its name alone, org/m, and its branch"):
        run(tmp_path, path)


@pytest.mark.parametrize("size", [0, 1000])
def test_pickled_weights_that_are_cut_off_are_named(folder, tmp_path, size):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    no_weights(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert run(tmp_path, folder, use_safetensors=False).done == 2
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[:size])
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(pipemill.ConfigError, match=r"pytorch_model\.bin \([\d,]+ bytes\) is cut"):
        run(tmp_path, folder, use_safetensors=False)


def test_shards_are_read(folder, models, tmp_path):
    sharded(folder)
    assert run(tmp_path, folder).done == 2


@pytest.mark.parametrize(
    ("task", "model", "lacks"),
    [
        ("text-classification", "fill-mask", r"classifier\.weight"),
        ("text-classification", "feature-extraction", r"classifier\.weight"),
        ("token-classification", "feature-extraction", r"classifier\.weight"),
        ("question-answering", "text-classification", r"qa_outputs\.weight"),
        ("fill-mask", "feature-extraction", r"cls\.predictions"),
        ("zero-shot-classification", "feature-extraction", r"classifier\.weight"),
    ],
)
def test_a_model_without_the_tasks_head_is_refused(models, tmp_path, task, model, lacks):
    column = "context" if task == "question-answering" else "text"
    message = rf"lacks weights of Bert\w+: {lacks}.*model\.allow_missing"
    with pytest.raises(pipemill.ConfigError, match=message):
        run(tmp_path, models[model], task, column)
    assert not (tmp_path / "out").exists()


def test_a_head_of_the_same_names_for_another_task_is_refused(models, tmp_path):
    message = r"BertForSequenceClassification.*token-classification needs a BertForTokenClassif"
    with pytest.raises(pipemill.ConfigError, match=message):
        run(tmp_path, models["text-classification"], "token-classification")


def rename(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file({change(k): v for k, v in weights.items() if change(k)}, folder / "model.safetensors")


def test_weights_under_another_prefix_are_refused(folder, tmp_path):
    rename(folder, lambda name: f"module.{name}")
    with pytest.raises(pipemill.ConfigError, match=r"lacks weights .*it has module\.bert\."):
        run(tmp_path, folder)


def test_one_missing_layer_is_refused(folder, tmp_path):
    rename(folder, lambda name: None if "layer.1.attention.self.query.weight" in name else name)
    with pytest.raises(pipemill.ConfigError, match=r"layer\.1\.attention\.self\.query\.weight"):
        run(tmp_path, folder)


def test_missing_weights_are_random_numbers_if_that_is_meant(models, tmp_path):
    report = run(tmp_path, models["feature-extraction"], allow_missing=True)
    assert report.done == 2


def test_a_config_of_another_size_is_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    labels = {str(i): f"label{i}" for i in range(7)}
    config |= {"id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(pipemill.ConfigError, match=r"classifier.* has the shape \(4.*needs \(7"):
        run(tmp_path, folder)


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
@pytest.mark.parametrize("verdict", [True, False], ids=["before the run", "by a worker"])
def test_a_config_of_fewer_layers_is_refused(folder, tmp_path, monkeypatch, task, verdict):
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    if not verdict:
        monkeypatch.setattr(model_fit, "find_weights_misfit", lambda *given: None)
    with pytest.raises(pipemill.ConfigError, match=r"2 layers of encoder\.layer, .* has 1 "):
        run(tmp_path, folder, task)
    assert run(tmp_path, folder, task, allow_missing=True).done == 2


def test_a_layer_that_predicts_further_tokens_is_not_missed(folder, tmp_path):
    """DeepSeek's checkpoints have it after the last one, with weights that others lack."""
    weights = load_file(folder / "model.safetensors")
    further = {k.replace("layer.1.", "layer.2."): v.clone() for k, v in weights.items()}
    weights["bert.encoder.layer.2.eh_proj.weight"] = torch.ones(2)
    save_file(further | weights, folder / "model.safetensors")
    assert run(tmp_path, folder).done == 2


def test_a_model_that_the_task_has_no_class_for_is_refused(models, tmp_path):
    with pytest.raises(
        pipemill.ConfigError,
        match=r"holds ViT\w+ \(model_type vit\), which can't do text-classification",
    ):
        run(tmp_path, models["image-classification"])


@pytest.mark.parametrize("kind", ["MaskFormer", "Mask2Former", "OneFormer", "Eomt", "RfDetr"])
def test_a_model_that_only_the_tasks_pipeline_knows_is_not_refused(tmp_path, kind):
    """transformers loads what config.json names, and the pipeline looks into more tables."""
    instances = "Instance" if kind in ("MaskFormer", "RfDetr") else "Universal"
    config = getattr(transformers, f"{kind}Config")()
    config.architectures = [f"{kind}For{instances}Segmentation"]
    config.save_pretrained(tmp_path)
    found = find_misfit(find_task("image-segmentation"), Model(path=str(tmp_path)), own=False)
    assert found is None or "can't do" not in found
    config.architectures = [f"{kind}Model"]
    config.save_pretrained(tmp_path)
    found = find_misfit(find_task("image-segmentation"), Model(path=str(tmp_path)), own=False)
    assert "can't do" in found


def test_a_model_that_writes_what_documents_say_in_another_way_is_refused(tmp_path):
    """transformers loads it, and then asks it for places in the text, as LayoutLM's."""
    config = transformers.UdopConfig(architectures=["UdopForConditionalGeneration"])
    config.save_pretrained(tmp_path)
    task = find_task("document-question-answering")
    found = find_misfit(task, Model(path=str(tmp_path)), own=False)
    assert "which can't do document-question-answering" in (found or "")


@pytest.mark.parametrize("task", ["image-classification", "token-classification"])
def test_labels_that_are_not_numbered_from_0_are_refused(models, tmp_path, task):
    folder = Path(shutil.copytree(models[task], tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    holes = {str(2 * int(number)): name for number, name in config["id2label"].items()}
    for labels, why in ((holes, "but not number 1"), (list(holes.values()), "must give a name to")):
        (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))
        misfit = find_misfit(find_task(task), Model(path=str(folder)), own=False)
        assert re.search(f"id2label in its config.json .*{why}", misfit or "")


@pytest.mark.parametrize(
    ("task", "other", "lacks"),
    [
        ("feature-extraction", "automatic-speech-recognition", "input_ids, and .* input_values"),
        (
            "image-feature-extraction",
            "fill-mask",
            "pixel_values, and this one's input is input_ids",
        ),
        ("zero-shot-audio-classification", "feature-extraction", "input_ids and input_features"),
    ],
)
def test_a_model_of_another_medium_is_refused_where_all_kinds_load(models, task, other, lacks):
    """These tasks load a model by transformers' AutoModel; each row would fail in its forward."""
    why = find_misfit(find_task(task), Model(path=str(models[other])), own=False)
    assert re.search(f"which can't do {task}: that needs a model of {lacks}", why or "")


@pytest.mark.parametrize(
    ("task", "other", "hint"),
    [
        ("feature-extraction", "", r"\. Save the part .*transformers\.CLIPTextModel\.from_pretr"),
        ("image-feature-extraction", "", r"\. Save the part .*transformers\.CLIPVisionModel\.from"),
        ("image-feature-extraction", "-siglip", r"\. Save .*SiglipVisionModel\.from_pretrained"),
        ("feature-extraction", "-siglip", "$"),  # whose part AutoModel does not load
    ],
)
def test_a_model_that_wants_a_text_beside_each_image_makes_no_vectors(models, task, other, hint):
    model = Model(path=str(models[f"zero-shot-image-classification{other}"]))
    why = find_misfit(find_task(task), model, own=False)
    assert re.search(f"which can't do {task}: it compares texts .*needs both{hint}", why or "")
    assert find_misfit(find_task("zero-shot-image-classification"), model, own=False) is None


def test_a_kind_of_model_that_transformers_does_not_know_is_refused(folder, tmp_path):
    (folder / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(pipemill.ConfigError, match="no-such-architecture"):
        run(tmp_path, folder)


def test_a_folder_without_a_vocabulary_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(
        pipemill.ConfigError, match=r"no vocabulary for its tokenizer \(looked for .*tokenizer\.js"
    ):
        run(tmp_path, folder)


@pytest.mark.parametrize("name", ["whisper", "automatic-speech-recognition"])
def test_texts_that_are_written_need_a_vocabulary_too(models, tmp_path, name):
    folder = Path(shutil.copytree(models[name], tmp_path / "model"))
    for file in folder.iterdir():
        if "vocab" in file.name or file.name == "tokenizer.json":
            file.unlink()
    assert (folder / "tokenizer_config.json").exists()
    with pytest.raises(pipemill.ConfigError, match="no vocabulary for its tokenizer"):
        run(tmp_path, folder, "automatic-speech-recognition", "audio")


def with_words(folder, count):
    """A tokenizer of so many words beside the special tokens."""
    words = tiny.tokenizer()
    state = json.loads(words.backend_tokenizer.to_str())
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(count))]
    state["model"]["vocab"] = {token: i for i, token in enumerate(kept)}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(state))


def test_a_vocabulary_of_another_model_is_refused(folder, tmp_path):
    with_words(folder, 4)
    with pytest.raises(
        pipemill.ConfigError, match=r"has 9 tokens, and the model's embedding table"
    ):
        run(tmp_path, folder)
    with_words(folder, 1000)
    with pytest.raises(
        pipemill.ConfigError, match=r"of their ids are beyond the model's embedding"
    ):
        run(tmp_path, folder)


@pytest.mark.parametrize(
    ("count", "why"), [(6, "head has room for 17"), (99, "beyond the model's CTC head")]
)
def test_letters_of_another_model_of_speech_are_refused(models, tmp_path, count, why):
    task = "automatic-speech-recognition"
    folder = Path(shutil.copytree(models[task], tmp_path / "model"))
    letters = list(json.loads((folder / "vocab.json").read_text()))[:count]
    letters += [chr(ord("А") + i) for i in range(count - len(letters))]
    (folder / "vocab.json").write_text(json.dumps({one: i for i, one in enumerate(letters)}))
    assert why in (find_misfit(find_task(task), Model(path=str(folder)), own=False) or "")


def test_vectors_need_no_pooler(models, tmp_path):
    """A masked-language model has none, and no vector is made of it."""
    assert run(tmp_path, models["fill-mask"], "feature-extraction").done == 2


def test_the_driver_of_a_run_on_ray_says_the_same_without_torch(models, tmp_path):
    pq.write_table(pa.table({"text": ["a mill"]}), tmp_path / "in.parquet")
    code = (
        "import sys, pipemill\n"
        "try:\n"
        f"    pipemill.run(task='text-classification', model={models['fill-mask']!r},"
        f" input={str(tmp_path / 'in.parquet')!r}, output={str(tmp_path / 'out')!r},"
        " actors={'placement': 'fused'})\n"
        "except pipemill.ConfigError as error:\n"
        "    import ray\n"
        "    print(error, ray.is_initialized(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "classifier.weight" in done.stdout
    assert done.stdout.endswith("False False\n")


def test_a_python_that_has_imported_transformers_starts_no_other_to_check(
    models, tmp_path, monkeypatch
):
    import transformers.pipelines  # noqa: F401

    monkeypatch.setattr("pipemill.jobs.planning.find_model.FitCheck", None)
    pq.write_table(pa.table({"text": ["a mill"]}), tmp_path / "in.parquet")
    with pytest.raises(pipemill.ConfigError, match=r"classifier\.weight"):
        pipemill.run(
            task="text-classification",
            model=models["fill-mask"],
            input=str(tmp_path / "in.parquet"),
            output=str(tmp_path / "out"),
            actors={"placement": "fused"},
        )


def test_a_worker_refuses_random_weights_by_itself(models):
    """Of a Hub's model the driver may not have the files."""
    from pipemill.pipelines.loading.model import Model

    with pytest.raises(ValueError, match=r"lacks weights of BertForSequenceClassification: class"):
        Model(path=models["fill-mask"]).load("text-classification")
    loaded = Model(path=models["fill-mask"], allow_missing=True).load("text-classification")
    assert loaded.model.classifier.weight.shape == torch.Size([2, 32])


def test_a_hub_name_without_a_network_is_said_at_once(tmp_path):
    pq.write_table(pa.table({"text": ["a mill"]}), tmp_path / "in.parquet")
    arguments = "run --task text-classification --input in.parquet --output out --model".split()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pipemill.jobs.cli.app", *arguments, "org/no-such-model"],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "PYTHONPATH": str(Path(pipemill.__file__).parent.parent),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no model 'org/no-such-model'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("status", "kind", "token", "error", "said"),
    [
        (401, GatedRepoError, None, pipemill.ConfigError, "granted access on https://hub/org/m: s"),
        (403, GatedRepoError, "hf_x", pipemill.ConfigError, "no access: ask for it on https://hu"),
        (401, RepositoryNotFoundError, None, pipemill.ConfigError, "for a private one, set HF_TOK"),
        (401, RepositoryNotFoundError, "hf_x", pipemill.ConfigError, "token here .* may read"),
        (429, HfHubHTTPError, None, pipemill.RunError, "HTTP status 429 .* org/m: run again"),
        (500, HfHubHTTPError, None, pipemill.RunError, "HTTP status 500 .* org/m: run again"),
    ],
)
def test_why_the_hub_shows_no_model(tmp_path, monkeypatch, status, kind, token, error, said):
    hub_errors.answer(monkeypatch, status, kind)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(error, match=said):
        pipemill.run({**light.job(tmp_path, ["a"]), "model": "org/m"})


def test_a_model_is_not_embedded_in_another_way_while_the_hub_is_broken(tmp_path, monkeypatch):
    commit = tmp_path / "hub/models--org--m/snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_errors.answer(monkeypatch, 500)
    config = commit / "config.json"
    config.write_text('{"model_type": "bert"}')
    monkeypatch.setattr(find_model, "find_on_hub", lambda model: config)
    job = {**light.job(tmp_path, ["a"]), "task": "feature-extraction", "model": "org/m"}
    with pytest.raises(pipemill.RunError, match="HTTP status 500 for the model org/m: run again"):
        pipemill.run(job)


def test_pickled_weights_are_checked_too(models, tmp_path):
    folder = Path(shutil.copytree(models["fill-mask"], tmp_path / "model"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(pipemill.ConfigError, match=r"lacks weights.*classifier\.weight"):
        run(tmp_path, folder, use_safetensors=False)


# Of each name that it reads: the exit status and stderr of the command.
_RUN_EACH = """
import contextlib, io, json, sys
from pipemill.jobs.cli.app import main
for name in map(str.strip, sys.stdin):
    words = f"--input in.parquet --model {name} --output {name.replace('/', '-')}".split()
    local = ["--set", "actors.placement=local"]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        status = main(["run", "--task", "text-classification", *words, *local])
    print(json.dumps([status, said.getvalue()]), flush=True)
"""


def run_from_hub(repositories, names, tmp_path):
    """Of each name the exit status, stderr, and which files were fetched."""
    pq.write_table(pa.table({"text": ["a mill"]}), tmp_path / "in.parquet")
    found = {}
    with hub(repositories) as (url, asked):
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf")}
        env["PYTHONPATH"] = str(Path(pipemill.__file__).parent.parent)
        env.pop("HF_HUB_OFFLINE")
        # One for all: a new Python imports torch anew.
        with subprocess.Popen(
            [sys.executable, "-c", _RUN_EACH],
            cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            for name in names:
                asked.clear()
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                status, said = json.loads(process.stdout.readline())
                found[name] = (status, said, list(asked))
            process.stdin.close()
    return found


def test_a_model_on_the_hub_is_checked_by_its_header(models, tmp_path):
    repositories = {
        "org/good": Path(models["text-classification"]),
        "org/headless": Path(models["fill-mask"]),
    }
    found = run_from_hub(repositories, ["org/headless", "org/none", "org/good"], tmp_path)
    status, stderr, asked = found["org/headless"]
    assert status == 2
    assert "pipemill: org/headless: the checkpoint lacks weights" in stderr
    assert "config.json" in asked
    assert [a for a in asked if "safetensors" in a] == ["model.safetensors bytes=0-100000"]
    status, stderr, asked = found["org/none"]
    assert (status, asked) == (2, [])
    assert "the Hub has no model of that name (for a private one, set HF_TOKEN)" in stderr
    assert found["org/good"][0] == 0
    assert ds.dataset(tmp_path / "org-good").count_rows() == 1


@pytest.mark.extras("peft")
def test_an_adapter_on_the_hub_brings_its_base(models, tmp_path):
    import peft

    base = Path(models["text-classification"])
    torch.manual_seed(3)
    adapter = peft.get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(base),
        peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False),
    )
    adapter.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/base"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))

    repositories = {"org/base": base, "org/adapter": tmp_path / "adapter"}
    found = run_from_hub(repositories, ["org/adapter"], tmp_path)
    assert found["org/adapter"][0] == 0, found
    plain = transformers.pipeline("text-classification", model=adapter.eval(), tokenizer=str(base))(
        "a mill"
    )[0]
    row = ds.dataset(tmp_path / "org-adapter").to_table().to_pylist()[0]
    assert row["label"] == plain["label"]
    assert row["score"] == pytest.approx(plain["score"], abs=1e-5)


def test_an_old_output_goes_on_without_another_look(folder, tmp_path):
    """What has parts was checked when it began."""
    assert run(tmp_path, folder).done == 2
    assert ds.dataset(tmp_path / "out").count_rows() == 2
    assert run(tmp_path, folder).added["splits"] == 0


def test_a_row_with_a_token_that_the_model_does_not_know_is_a_dead_letter(folder, tmp_path):
    """BART's <mask> is such a token: all other rows are answered."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    texts = pa.table({"text": ["a mill", "the zebra river", "wheat"]})
    pq.write_table(texts, tmp_path / "in.parquet")
    report = run(tmp_path, folder)
    assert (report.done, report.dead) == (2, 1)
    assert "beyond the model's embedding table" in report.dead_reasons[0]["message"]
