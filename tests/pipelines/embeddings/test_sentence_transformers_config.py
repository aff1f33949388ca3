"""Folders of sentence-transformers against the vectors that `SentenceTransformer.encode` gave."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.actors.batch import Batch
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.jobs.config.load import make_job
from pipemill.jobs.prepare import prepare_without_output
from pipemill.pipelines.embeddings.sentence_transformers_files import read_recipe_files
from pipemill.pipelines.reference.row_by_row import PlainRows
from pipemill.pipelines.tasks.feature_extraction import FeatureExtraction

from pipemill.errors import ConfigError
from tests.references import sentence_folders
from tests.support import tiny

VECTORS = json.loads(sentence_folders.VECTORS.read_text())
CASES = [(name, i) for name, cases in VECTORS.items() for i in range(len(cases))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return cache(lambda name: sentence_folders.build(name, tmp_path_factory.mktemp(name) / "model"))


def loads(folder, texts, parameters, tmp_path, weights=True, **model):
    """What a run of these texts would load, as its driver settles it."""
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    job = make_job(
        {
            "task": "feature-extraction",
            "model": {"path": str(folder), **model},
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "parameters": parameters,
        },
        "test",
    )
    return prepare_without_output(job)


def parameters_of(case):
    options = dict(case["options"])
    if options.pop("normalize_embeddings", False):
        options["normalize"] = True
    return {**options, "truncation": True}


def vectors_of(batch):
    assert not batch.failures
    return np.array(batch.results["embedding"].to_pylist())


@pytest.mark.parametrize(("name", "number"), CASES)
def test_vectors_are_those_of_encode(folders, tmp_path, name, number):
    case = VECTORS[name][number]
    safe = {"use_safetensors": name != "old_pickled"}
    prepared = look_at(folders(name), case, tmp_path, **safe)
    full = prepared.load()
    light = load_without_weights(prepared.load)
    rows = pa.table({"text": case["texts"]})
    expected = np.array(case["vectors"])
    for budget in (1, 60, 100_000):
        stages = Stages(full.task, full.columns, TokenBudget(budget))
        got = stages.process(Batch(rows))
        np.testing.assert_allclose(vectors_of(got), expected, atol=1e-5)
    staged = stages.forward(Batch.from_bytes(light.expand(Batch(rows)).to_bytes()))
    staged = light.regroup(Batch.from_bytes(staged.to_bytes()))
    np.testing.assert_allclose(vectors_of(staged), expected, atol=1e-5)


def look_at(folder, case, tmp_path, **model):
    return loads(folder, case["texts"], parameters_of(case), tmp_path, **model)


def load_without_weights(load):
    return replace(load, weights=False)()


@pytest.mark.parametrize(("name", "number"), [(n, i) for n, i in CASES if i == 0])
def test_plain_transformers_give_the_same_when_a_sample_is_verified(
    folders, tmp_path, name, number
):
    case = VECTORS[name][number]
    safe = {"use_safetensors": name != "old_pickled"}
    load = look_at(folders(name), case, tmp_path, **safe).load
    plain = PlainRows(load)
    for text, vector in list(zip(case["texts"], case["vectors"], strict=True))[:3]:
        answer, by_transformers = plain.answer(Batch(pa.table({"text": [text]})))
        assert by_transformers
        np.testing.assert_allclose(answer["embedding"], vector, atol=1e-5)


# What the job says wins over the folder, and then means what it means for any model.
EXPLICIT = {
    "mean": lambda vectors: vectors.mean(axis=0),
    "cls": lambda vectors: vectors[0],
    "last": lambda vectors: vectors[-1],
    "max": lambda vectors: vectors.max(axis=0),
}


@pytest.mark.parametrize("pooling", EXPLICIT)
@pytest.mark.parametrize("normalize", [None, False, True])
def test_a_named_pooling_is_of_the_transformer_alone(folders, tmp_path, pooling, normalize):
    texts = VECTORS["default_prompt"][0]["texts"][:4]
    folder = folders("default_prompt")
    plain = transformers.pipeline("feature-extraction", model=str(folder), device="cpu")
    parameters = {"pooling": pooling, "normalize": normalize}
    prepared = loads(folder, texts, parameters, tmp_path)
    got = vectors_of(prepared.load().process(Batch(pa.table({"text": texts}))))
    for vector, text in zip(got, texts, strict=True):
        expected = EXPLICIT[pooling](np.array(plain(text)[0]))
        expected = expected / np.linalg.norm(expected) if normalize else expected
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert prepared.pooling == pooling + (", normalized" if normalize else "")


def test_false_leaves_a_folders_own_scaling_out(folders, tmp_path):
    texts = VECTORS["normalized"][0]["texts"][:4]
    raw = np.array(VECTORS["cls"][0]["vectors"][:4])
    prepared = loads(folders("normalized"), texts, {"normalize": False}, tmp_path)
    got = vectors_of(prepared.load().process(Batch(pa.table({"text": texts}))))
    np.testing.assert_allclose(got, raw, atol=1e-5)
    assert prepared.pooling == "cls"


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("normalized", {"truncate_dim": 6}, "cls, normalized, the first 6 numbers"),
        ("normalized", {"truncate_dim": 6, "normalize": False}, "cls, the first 6 numbers"),
        (
            "normalized",
            {"truncate_dim": 6, "normalize": True},
            "cls, normalized, the first 6 numbers, normalized",
        ),
        ("normalized", {"truncate_dim": 6, "pooling": "cls"}, "cls, the first 6 numbers"),
        (
            "default_prompt",
            {"truncate_dim": 3, "prompt": ""},
            "mean, normalized, the first 3 numbers",
        ),
        ("default_prompt", {"normalize": False, "prompt": ""}, "mean, the first 5 numbers"),
    ],
)
def test_a_job_truncates_vectors(folders, tmp_path, name, parameters, told):
    texts = VECTORS["normalized"][0]["texts"][:4]
    model = folders(name)
    whole = loads(model, texts, {"pooling": told.split(",")[0]}, tmp_path)
    expected = vectors_of(whole.load().process(Batch(pa.table({"text": texts}))))
    for step in told.split(", ")[1:]:
        if step == "normalized":
            expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        else:
            expected = expected[:, : int(step.split()[2])]
    prepared = loads(model, texts, parameters, tmp_path)
    rows = Batch(pa.table({"text": texts}))
    np.testing.assert_allclose(vectors_of(prepared.load().process(rows)), expected, atol=1e-5)
    assert prepared.pooling == told
    answer, by_transformers = PlainRows(prepared.load).answer(Batch(pa.table({"text": texts[:1]})))
    assert by_transformers
    np.testing.assert_allclose(answer["embedding"], expected[0], atol=1e-5)


def test_windows_are_pooled_before_what_follows_the_pooling(folders, tmp_path):
    texts = VECTORS["short"][1]["texts"]
    folder = folders("short")  # 20 tokens at once, mean, normalized
    prepared = loads(folder, texts, {}, tmp_path)
    got = vectors_of(prepared.load().process(Batch(pa.table({"text": texts}))))
    plain = transformers.pipeline("feature-extraction", model=str(folder), device="cpu")
    for vector, text in zip(got, texts, strict=True):
        ids = plain.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        pieces = [[2, *ids[i : i + 18], 3] for i in range(0, len(ids), 18)]
        with torch.no_grad():
            states = [plain.model(torch.tensor([p])).last_hidden_state[0] for p in pieces]
        mean = torch.cat(states).mean(dim=0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)


def test_the_prompts_tokens_are_left_out_of_the_first_window_only(folders, tmp_path):
    texts = [tiny.sentence(120, 8)]
    folder = folders("without_prompt_mean")
    prepared = loads(folder, texts, {"prompt_name": "query", "max_length": 30}, tmp_path)
    got = vectors_of(prepared.load().process(Batch(pa.table({"text": texts}))))
    plain = transformers.pipeline("feature-extraction", model=str(folder), device="cpu")
    words = plain.tokenizer
    whole = words(f"query for a mill : {texts[0]}", add_special_tokens=False, truncation=False)
    ids = whole["input_ids"]
    skipped = len(words("query for a mill : ")["input_ids"]) - 1
    pieces = [[2, *ids[i : i + 28], 3] for i in range(0, len(ids), 28)]
    with torch.no_grad():
        states = [plain.model(torch.tensor([p])).last_hidden_state[0] for p in pieces]
    states[0] = states[0][skipped:]
    np.testing.assert_allclose(got[0], torch.cat(states).mean(dim=0), atol=1e-5)


def edited(folders, name, tmp_path, changes):
    """A copy of the folder with other JSON in some files; None removes a file."""
    copy = tmp_path / "edited"
    shutil.copytree(folders(name), copy)
    for file, content in changes.items():
        if content is None:
            (copy / file).unlink()
        else:
            (copy / file).parent.mkdir(exist_ok=True)
            (copy / file).write_text(json.dumps(content))
    return copy


def modules(*kinds):
    listed = []
    for i, kind in enumerate(kinds):
        path = "" if kind.endswith("Transformer") else f"{i}_{kind}"
        name = kind if "." in kind else f"sentence_transformers.models.{kind}"
        listed.append({"idx": i, "name": str(i), "path": path, "type": name})
    return listed


POOLING = {"embedding_dimension": 12, "pooling_mode": "cls"}
DENSE = {"in_features": 12, "out_features": 5, "bias": True}
MODEL_TYPE = {"model_type": "SparseEncoder"}
REFUSED = {
    "CNN": {"modules.json": modules("Transformer", "CNN", "Pooling")},
    "LSTM": {"modules.json": modules("Transformer", "LSTM", "Pooling")},
    "WeightedLayerPooling": {
        "modules.json": modules("Transformer", "WeightedLayerPooling", "Pooling")
    },
    "CLIPModel": {"modules.json": modules("CLIPModel")},
    "Router": {"modules.json": modules("Router", "Pooling")},
    "Asym": {"modules.json": modules("Transformer", "Pooling", "Asym")},
    "StaticEmbedding": {"modules.json": modules("StaticEmbedding"), "config.json": None},
    "BoW": {"modules.json": modules("BoW", "Dense"), "config.json": None},
    "WordEmbeddings": {"modules.json": modules("WordEmbeddings", "Pooling"), "config.json": None},
    "custom_st.Transformer": {"modules.json": modules("custom_st.Transformer", "Pooling")},
    "no Pooling": {"modules.json": modules("Transformer")},
    "SparseEncoder": {"config_sentence_transformers.json": MODEL_TYPE},
    "my.Activation": {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "2_Dense/config.json": {**DENSE, "activation_function": "my.Activation"},
    },
    "token_embeddings": {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "2_Dense/config.json": {**DENSE, "module_input_name": "token_embeddings"},
    },
    "takes 7 numbers, and the vectors before it have 12": {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "2_Dense/config.json": {**DENSE, "in_features": 7},
    },
    "2_Dense has no weights": {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "2_Dense/config.json": DENSE,
    },
    "the mode 'median'": {"1_Pooling/config.json": {**POOLING, "pooling_mode": "median"}},
    "fill-mask": {"sentence_bert_config.json": {"transformer_task": "fill-mask"}},
    "chat messages": {
        "sentence_bert_config.json": {"modality_config": {"message": {"method": "forward"}}}
    },
    "get_text_features": {
        "sentence_bert_config.json": {
            "modality_config": {
                "text": {"method": "get_text_features", "method_output_name": "pooler_output"}
            }
        }
    },
    "tokenizer_args: add_prefix_space": {
        "sentence_bert_config.json": {"tokenizer_args": {"add_prefix_space": True}}
    },
    "there is no 1_Pooling/config.json": {"1_Pooling/config.json": None},
    "'long' in max_seq_length": {"sentence_bert_config.json": {"max_seq_length": "long"}},
    "modules.json is not a list of modules": {"modules.json": {"0": "Transformer"}},
    "outside of the model's folder": {
        "modules.json": [
            *modules("Transformer"),
            {"type": "sentence_transformers.models.Pooling", "path": "../1_Pooling"},
        ]
    },
    "default_prompt_name 'nope'": {
        "config_sentence_transformers.json": {"default_prompt_name": "nope", "prompts": {}}
    },
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(folders, tmp_path, named):
    folder = edited(folders, "cls", tmp_path, REFUSED[named])
    with pytest.raises(ConfigError) as raised:
        loads(folder, ["a"], {}, tmp_path)
    assert named in str(raised.value)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_a_module_that_are_cut_off_are_named(folders, tmp_path, name):
    folder = edited(folders, "cls", tmp_path, REFUSED["2_Dense has no weights"])
    (folder / "2_Dense" / name).write_bytes(b"PK\3\4")
    with pytest.raises(ConfigError, match=f"2_Dense/{name}.* is cut off"):
        loads(folder, ["a"], {}, tmp_path)


def test_the_message_of_a_refused_module_says_what_to_do(folders, tmp_path):
    folder = edited(folders, "cls", tmp_path, REFUSED["CNN"])
    with pytest.raises(ConfigError, match=r"names the module CNN \(1_CNN\).*parameters.pooling"):
        loads(folder, ["a"], {}, tmp_path)
    assert loads(folder, ["a"], {"pooling": "cls"}, tmp_path).pooling == "cls"


def test_json_that_is_none_names_its_file(folders, tmp_path):
    folder = edited(folders, "cls", tmp_path, {})
    (folder / "1_Pooling/config.json").write_text("{pooling: cls}")
    with pytest.raises(ConfigError, match=r"1_Pooling/config.json is not JSON"):
        loads(folder, ["a"], {}, tmp_path)


def test_pickled_weights_of_a_module_are_read_only_if_the_job_says_so(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"2_Dense are pickled.*model.use_safetensors to false"):
        loads(folders("old_pickled"), ["a"], {}, tmp_path)


def test_prompt_names_are_the_folders(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"prompt_name 'quary' .* it has document, other, query"):
        loads(folders("normalized"), ["a"], {"prompt_name": "quary"}, tmp_path)
    with pytest.raises(ConfigError, match=r"prompt_name 'query' .* it has no prompts"):
        loads(folders("old"), ["a"], {"prompt_name": "query"}, tmp_path)
    with pytest.raises(ConfigError, match=r"prompt and prompt_name are both given"):
        loads(folders("normalized"), ["a"], {"prompt_name": "query", "prompt": "b"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("cls", {}, "cls"),
        ("several", {}, "mean + cls + max"),
        ("normalized", {"prompt_name": "query"}, "cls, normalized; prompt 'query for a mill : '"),
        (
            "without_prompt_mean",
            {"prompt": "a "},
            "mean; prompt 'a ', not pooled",
        ),
        ("default_prompt", {}, "mean, normalized, the first 5 numbers; prompt 'Find Paris '"),
        ("t5", {}, "mean, Dense to 8, normalized"),
        ("lower_case", {}, "mean, normalized; lower case; at most 20 tokens at once"),
        ("old", {"prompt": "b ", "pooling": "max"}, "max; prompt 'b '"),
    ],
)
def test_the_pooling_in_words(folders, tmp_path, name, parameters, told):
    assert loads(folders(name), ["a"], parameters, tmp_path).pooling == told


FILES = {
    "modules.json": modules("Transformer", "Pooling", "Dense", "Normalize"),
    "config.json": {"model_type": "bert", "max_position_embeddings": 48, "pad_token_id": 0},
    "tokenizer_config.json": {"model_max_length": 48},
    "sentence_bert_config.json": {
        "max_seq_length": 20,
        "do_lower_case": False,
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "processing_kwargs": {"text": {"max_length": 12}},
        "model_args": {},
    },
    "config_sentence_transformers.json": {
        "prompts": {"query": "q "},
        "default_prompt_name": "query",
        "truncate_dim": 4,
        "model_type": "SentenceTransformer",
    },
    "1_Pooling/config.json": POOLING,
    "2_Dense/config.json": DENSE,
    "3_Normalize/config.json": {"module_input_name": "sentence_embedding"},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: (
        st.lists(some, max_size=2) | st.dictionaries(st.text(max_size=5), some, max_size=2)
    ),
    max_leaves=4,
)
DEFAULTS = {name: p.default for name, p in FeatureExtraction.parameters.items()}


@settings(max_examples=300, deadline=None)
@given(st.data(), ANYTHING)
def test_any_json_is_followed_or_an_error_that_says_why(data, value):
    files = json.loads(json.dumps(FILES))
    if data.draw(st.booleans()):
        files[data.draw(st.sampled_from(list(FILES)))] = value
    else:
        name = data.draw(st.sampled_from([name for name in FILES if name != "modules.json"]))
        files[name][data.draw(st.sampled_from(list(FILES[name])))] = value
    with suppress(ValueError):
        found = read_recipe_files(files.get)
        assert FeatureExtraction.follow(DEFAULTS, found).pooling
