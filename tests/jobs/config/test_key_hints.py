"""What is said of a name that code around transformers has, and a job has not."""

from __future__ import annotations

import re

import pytest
from pipemill.jobs.config.job import Job
from pipemill.jobs.config.key_hints import hint_parameter
from pipemill.jobs.config.load import build_job
from pipemill.pipelines.registry import find_task
from pipemill.pipelines.tasks.generation_parameters import FIELDS

from pipemill.errors import ConfigError

GOOD = {"task": "ner", "model": {"path": "m"}, "input": "i", "output": "o"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": 0}, "unknown key 'device' .*; GPUs are found.* actors.num_gpus"),
        ({"batching": {"batch_size": 8}}, "'batching.batch_size' .*; .* batching.max_tokens"),
        ({"model": {"path": "m", "torch_dtype": "float16"}}, "'model.torch_dtype'.*model.dtype"),
        ({"model": {"path": "m", "tokenizer": "t"}}, r"'model.tokenizer'.*model=\{'model': …"),
        ({"model": {"path": "m", "device_map": "auto"}}, "'model.device_map'.*actors.num_gpus"),
        ({"model": {"path": "m", "attn_implementation": "sdpa"}}, "chooses the attention"),
        ({"model": {"path": "m", "token": "hf_x"}}, "'model.token'.*environment: HF_TOKEN"),
        ({"revision": "main"}, "unknown key 'revision' .*; did you mean 'model.revision'"),
        ({"stride": 3}, "unknown key 'stride' .*; did you mean 'parameters.stride'"),
    ],
)
def test_a_key_of_transformers_is_answered_with_what_to_set(change, message):
    with pytest.raises(ConfigError, match=message):
        build_job({**GOOD, **change}, [], {}, {})


@pytest.mark.parametrize(
    ("task", "name", "hint"),
    [
        ("text-classification", "return_all_scores", "^top_k: null gives"),
        ("text-classification", "tokenizer_kwargs", "^truncation, max_length and others"),
        ("text-classification", "text_pair", "it is a column .*--column text_pair=COLUMN"),
        ("text-classification", "batch_size", "batching.max_tokens"),
        ("token-classification", "grouped_entities", "^aggregation_strategy: simple groups"),
        ("question-answering", "context", "it is a column .*--column context=COLUMN"),
        ("feature-extraction", "precision", "vectors are float32"),
        ("feature-extraction", "normalize_embeddings", "did you mean 'normalize'"),
        ("text-generation", "max_matching_ngram_size", "set it in generate_kwargs"),
        ("text-generation", "max_new_token", "did you mean 'max_new_tokens'"),
        ("text-generation", "max_tokens", "^max_new_tokens is the most tokens"),
        ("text-classification", "max_tokens", "did you mean 'batching.max_tokens'"),
        ("text-generation", "return_tensors", "answers are columns"),
        ("image-text-to-text", "temperature", r"set it in generate_kwargs: \{temperature: …\}"),
        ("depth-estimation", "timeout", "a server that sends nothing"),
        ("depth-estimation", "size", "it takes none"),
    ],
)
def test_a_parameter_of_transformers_is_answered_with_what_to_set(task, name, hint):
    assert re.search(hint, hint_parameter(name, find_task(task), Job))


def test_all_fields_of_a_generation_config_are_known():
    from transformers import GenerationConfig

    inner = {"transformers_version", "_from_model_config"}
    assert vars(GenerationConfig()).keys() - FIELDS == inner
