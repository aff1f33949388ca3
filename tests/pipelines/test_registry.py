"""pipemill's tasks against those of the installed transformers: names, parameters, defaults."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
from pipemill.pipelines import registry, restored
from pipemill.pipelines.adapter.parameters.user_parameters import names_read
from pipemill.pipelines.registry import ALIASES, find_task, task_names
from pipemill.pipelines.tasks.generation_parameters import GENERATION, GENERATION_OF_SPEECH
from pipemill.pipelines.text import windows

# Parameters of pipemill's own, that no transformers pipeline has.
OURS = {
    "text-classification": {"window_pooling", "add_special_tokens", *windows.PARAMETERS},
    "feature-extraction": {
        *("pooling", "normalize", "truncate_dim", "prompt", "prompt_name"),
        *windows.PARAMETERS,
    },
    "text-generation": {"json_schema"},  # of the engine vllm alone
    # What the pipeline takes among its parameters, whatever their names.
    "image-text-to-text": {"chat_template_kwargs"},
    "any-to-any": {"chat_template_kwargs"},
}
# Where what is written in a signature is not what holds.
OTHERWISE = {
    ("audio-classification", "top_k"): "always given: all labels where the user names no number",
    ("automatic-speech-recognition", "return_timestamps"): "the model's configuration decides",
    ("document-question-answering", "max_answer_len"): "15 is put in for null",
    ("document-question-answering", "handle_impossible_answer"): "null is false",
    ("question-answering", "doc_stride"): "128 is put in for null",
    ("question-answering", "max_seq_len"): "384 is put in for null",
    ("text-generation", "prefix"): "the model's configuration decides",
    ("token-classification", "ignore_labels"): "[O] is put in for null",
}


@pytest.fixture(scope="module")
def theirs():
    """Of a transformers that nobody has registered anything with."""
    code = (
        "import json\nfrom transformers import pipelines as p\n"
        "print(json.dumps([sorted(p.SUPPORTED_TASKS), p.TASK_ALIASES]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_task_of_transformers_and_every_restored_one_is_there(theirs):
    tasks, aliases = theirs
    assert set(task_names()) == {*tasks, *restored._TASKS}
    assert {**aliases, **restored._ALIASES} == ALIASES
    assert not set(tasks) & set(restored._TASKS), "transformers has taken one up again"


def test_the_tasks_of_transformers_are_known_without_importing_it(theirs):
    tasks, _ = theirs
    assert all(map(registry.is_transformers_task, tasks))
    for name in ("question-answering", "text-clasification", "pt", "impl"):
        assert not registry.is_transformers_task(name)
    assert registry.has_transformers_model("bert")
    assert not registry.has_transformers_model("bert-of-mine")


def test_names_are_those_that_the_tasks_have():
    assert [find_task(name).name for name in task_names()] == task_names()
    assert find_task("translation_en_to_de").name == "translation_en_to_de"
    with pytest.raises(LookupError, match="did you mean 'fill-mask'"):
        find_task("fill-masks")


def pipeline_class(name):
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    restored.restore_pipelines()
    kind = PIPELINE_REGISTRY.check_task(name)[1]["impl"]
    return getattr(transformers, kind.rpartition(".")[2]) if isinstance(kind, str) else kind


def arguments(kind) -> dict[str, inspect.Parameter]:
    """Of the functions, the first that has one of a name with a default."""
    steps = [kind.preprocess, kind._forward, kind.postprocess, kind._sanitize_parameters]
    found = {}
    for step in steps:
        for name, argument in list(inspect.signature(step).parameters.items())[1:]:
            if argument.kind is not argument.VAR_KEYWORD:
                found.setdefault(name, argument)
    return found


def their_parameters(name):
    task = find_task(name)
    ours = {*getattr(task, "own_parameters", ()), *OURS.get(name, ())}
    generate = [*GENERATION.values(), *GENERATION_OF_SPEECH.values()]
    return {
        name: parameter
        for name, parameter in task.parameters.items()
        if name not in ours and not any(parameter is one for one in generate)
    }


@pytest.mark.parametrize("name", task_names())
def test_the_pipeline_knows_every_parameter(name):
    kind = pipeline_class(name)
    known = set(arguments(kind)) | names_read(kind)
    assert set(their_parameters(name)) <= known


@pytest.mark.parametrize("name", task_names())
def test_defaults_are_those_written_in_transformers(name):
    written = arguments(pipeline_class(name))
    differ = {
        parameter
        for parameter, ours in their_parameters(name).items()
        if parameter in written
        and written[parameter].default is not inspect.Parameter.empty
        and written[parameter].default != ours.default
    }
    assert differ == {parameter for task, parameter in OTHERWISE if task == name}


def test_parameters_of_generate_are_those_of_its_configuration():
    from transformers import GenerationConfig

    known = set(GenerationConfig().to_dict())
    assert set(GENERATION) - {"generate_kwargs"} <= known
