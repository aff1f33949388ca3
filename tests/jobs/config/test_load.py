import datetime
import json

import numpy as np
import pandas as pd
import pytest
import torch
from pipemill.jobs.config.job import ActorsSection, Job
from pipemill.jobs.config.load import build_job
from pipemill.jobs.config.task_entry import BatchingSection

from pipemill.errors import ConfigError

GOOD = {"task": "text-classification", "model": "m", "input": "i", "output": "o"}


def job(settings=(), columns=None, config=None, **sections):
    return build_job(config or GOOD, settings, columns or {}, sections)


def test_a_path_alone_stands_for_a_section():
    made = job()
    assert (made.model.path, made.input.path, made.output.path) == ("m", "i", "o")
    assert made == build_job(None, [], {}, GOOD)


@pytest.mark.parametrize("given", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_may_be_that_of_torch(given):
    made = job(model={"path": "m", "dtype": given})
    assert made.model_dump()["model"]["dtype"] == "bfloat16"


def test_settings_override_sections_which_override_the_config():
    made = job(
        ["output.rows_per_part=300", "parameters.top_k=5", "model.dtype=bfloat16"],
        {"text": "body"},
        config={**GOOD, "parameters": {"top_k": 1, "truncation": True}, "actors": {"max": 3}},
        parameters={"top_k": 2},
        output={"keep": ["id"]},
    )
    assert made.output.model_dump(include={"path", "rows_per_part", "keep"}) == {
        "path": "o",
        "rows_per_part": 300,
        "keep": ["id"],
    }
    assert made.parameters == {"top_k": 5, "truncation": True}
    assert (made.model.dtype, made.actors.max, made.input.columns) == (
        "bfloat16",
        3,
        {"text": "body"},
    )


def test_parameters_of_numpy_and_pandas_are_plain_values():
    given = {
        "top_k": np.int64(2),
        "candidate_labels": pd.Series(["a", "b", "a"]).unique(),
        "generate_kwargs": {"temperature": np.float64(0.5), "eos_token_id": [np.int32(3)]},
    }
    made = job(parameters=given).parameters
    assert (
        json.loads(json.dumps(made))
        == made
        == {
            "top_k": 2,
            "candidate_labels": ["a", "b"],
            "generate_kwargs": {"temperature": 0.5, "eos_token_id": [3]},
        }
    )


def test_a_yaml_file_takes_values_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "s3://bucket")
    file = tmp_path / "job.yaml"
    file.write_text("task: ner\nmodel: m\ninput: ${WHERE}/in\noutput: {path: '${WHERE}/out'}\n")
    made = job(config=file)
    assert (made.input.path, made.output.path) == ("s3://bucket/in", "s3://bucket/out")
    monkeypatch.delenv("WHERE")
    with pytest.raises(ConfigError, match=r"\$\{WHERE\}.*environment variable is not set"):
        job(config=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bach": 1}, "unknown key 'bach' in the job; did you mean 'batching'"),
        ({"output": {"path": "o", "kep": "all"}}, "'output.kep'.*did you mean 'keep'"),
        ({"num_gpus": 1}, "'num_gpus' in the job; did you mean 'actors.num_gpus'?"),
        ({"schema": {}}, "'schema' .* mean 'input.schema' or 'output.schema'?"),
        ({"top_k": 1}, "'top_k' in the job; did you mean 'parameters.top_k'?"),
        ({"actors": {"dtype": "float16"}}, "'actors.dtype' in .*did you mean 'model.dtype'?"),
        (
            {"model": {"path": "m", "pipeline_class": "a:B"}},
            "model.pipeline_class' .*; did you mean 'pipeline_class'?",
        ),
        ({"input": {"path": "i", "sep": ";"}}, "'input.sep' in the job; set input.delimiter$"),
        ({"tasks": 5, "zzz": 1}, "'tasks' in the job: must be a list"),
        (
            {"batch_size": 8},
            "'batch_size' in the job; micro-batches are measured, or",
        ),
        ({"input": {"path": "i", "colums": {}}}, "'input.colums'.*did you mean 'columns'"),
        ({"actors": {"zzz": 1}}, "'actors.zzz'.*there are: min, max, num_gpus"),
        ({"output": None}, "'output'"),
        ({"output": {"path": "o", "rows_per_part": 0}}, "at least 1"),
        ({"input": {"path": []}}, "'input.path' in the job: must not be empty"),
        ({"output": ""}, "'output.path' in the job: must not be empty"),
        ({"model": " "}, "'model.path' in the job: must not be empty"),
        ({"input": ["i", ""]}, "'input.path' in the job: must not be empty"),
        ({"output": {"path": "o", "max_errors": True}}, "'output.max_errors'.*a number of rows"),
        ({"actors": {"min": 4, "max": 2}}, "'actors' in the job: max .2. is less than min .4."),
        ({"model": {"path": "m", "dtype": "fp8"}}, "'model.dtype'.*float32"),
        # As YAML reads no, 2024 and 2024-01-01 without quotes.
        (
            {"input": {"path": "i", "columns": {"text": False}}},
            r"'input.columns.text' in .*it is False\): put it in quotes, since YAML reads yes, no",
        ),
        (
            {"input": {"path": "i", "schema": {False: "int64"}}},
            "the key False of 'input.schema' in .*put it in quotes, since YAML reads yes, no",
        ),
        (
            {"input": {"path": "i", "columns": {datetime.date(2024, 1, 1): "a"}}},
            "the key 2024-01-01 of 'input.columns' in .* is not a text: put it in quotes$",
        ),
        (
            {"input": {"path": [1, "i"]}},
            r"'input.path' in the job: must be a text \(it is 1\): put it in quotes$",
        ),
        ({"output": {"path": "o", "keep": [2024]}}, r"'output.keep'.*2024\): put it in quotes$"),
        (
            {"output": datetime.date(2024, 1, 1)},
            r"'output' in .*: must hold keys \(it is a date\)$",
        ),
        (
            {"output": {"path": datetime.date(2024, 1, 1)}},
            r"'output.path'.*a date\): put it in quotes$",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_right_one(change, message):
    with pytest.raises(ConfigError, match=message):
        job(config={**GOOD, **change})


def test_a_section_whose_keys_are_all_comments_is_empty(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(
        "task: ner\nmodel: {path: m, storage_options: }\ninput: {path: i, columns: }\noutput: o\n"
        "parameters:\n  # top_k: 2\nbatching:\nactors:\n"
    )
    made = job(config=file)
    assert (made.parameters, made.actors, made.batching) == ({}, ActorsSection(), BatchingSection())
    assert (made.input.columns, made.model.storage_options) == ({}, {})
    entries = [{"task": "ner", "model": "m", "parameters": None, "columns": None}]
    assert Job(tasks=entries, input="i", output="o").tasks[0].parameters == {}


def test_numbers_with_an_exponent_are_numbers():
    """Also those that YAML 1.1 takes for texts, as it has no point in 1e-3."""
    values = ["1e-3", "-2E+1", "1.5e3", ".5e-1", "'1e-3'", "12e4", "1e", "e-3", "v1e-3"]
    made = job([f"parameters.p{i}={value}" for i, value in enumerate(values)])
    numbers = [0.001, -20.0, 1500.0, 0.05, "1e-3", "12e4", "1e", "e-3", "v1e-3"]
    assert list(made.parameters.values()) == numbers


def test_columns_from_the_command_are_added_to_those_of_the_config():
    config = {**GOOD, "input": {"path": "i", "columns": {"text": "body", "text_pair": "other"}}}
    assert job(columns={"text": "title"}, config=config).input.columns == {
        "text": "title",
        "text_pair": "other",
    }


@pytest.mark.parametrize(
    ("config", "more", "settings"),
    [
        ({"parameters": [1]}, {"parameters": {"top_k": 1}}, []),
        ({"input": 5}, {"input": "x"}, []),
        ({}, {"input": {"path": "i", "columns": ["text"]}}, []),
        ({"input": {"path": "i", "limit": 3}}, {}, ["input.limit.x=3"]),
    ],
)
def test_a_section_that_is_none_is_a_message(config, more, settings):
    with pytest.raises(ConfigError, match=r"must hold keys(, not| \(it is)"):
        job(settings, config={**GOOD, **config}, **more)


def test_a_missing_section_and_a_file_that_is_no_config(tmp_path):
    with pytest.raises(ConfigError, match="'model' is missing in the job"):
        job(config={k: v for k, v in GOOD.items() if k != "model"})
    with pytest.raises(ConfigError, match=r"can't read the config .*nope\.yaml: No such file"):
        job(config=tmp_path / "nope.yaml")
    (tmp_path / "data.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(ConfigError, match="data.parquet is not a config: it is not UTF-8 text"):
        job(config=tmp_path / "data.parquet")
    file = tmp_path / "job.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="is not a config"):
        job(config=file)
    with pytest.raises(ConfigError, match="not of the form NAME=VALUE"):
        job(["output.rows_per_part"])


def test_secrets_are_neither_shown_nor_stored():
    made = Job.model_validate(
        {**GOOD, "input": {"path": "i", "storage_options": {"secret": "hunter2"}}}
    )
    assert made.input.storage_options == {"secret": "hunter2"}
    assert "hunter2" not in repr(made)
    assert "hunter2" not in str(made.model_dump())
    assert build_job(made, ["parameters.top_k=2"], {}, {}).input.storage_options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be YAML with keys such as task:"),
        ("- a", "must be YAML with keys such as task:"),
        ('task = "ner"\nmodel = "m"\n', "must be YAML with keys such as task:"),
        ("task: [", "line 1, column 8"),
        (
            "task: ner\ntask: text-classification\n",
            "the key 'task' is given twice, line 2, column 1",
        ),
        ("a: {b: 1, b: 2}", "the key 'b' is given twice"),
        ("a: &a {b: *a}", "nested too deeply, or contains itself"),
        (
            "a0: &a0 x\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60)),
            "more than 1,000,000 values",
        ),
        ("[" * 500, "nested too deeply, or contains itself"),
        ("a: 2020-99-99", "month must be in 1..12"),
        ("a: !!int x", "invalid literal"),
        ("a: !!timestamp x", "is not YAML"),
        ("a: !nope x", "could not determine a constructor"),
        ("{[]: 1}", "unhashable key"),
        ("1: 2", "the key 1 in .* is not a text: put it in quotes"),
        ("\0", "is not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_one_line_that_says_where(tmp_path, text, message):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        job(config=file)
    lines = str(error.value).splitlines()
    assert all("job.yaml" in line for line in lines)
    assert len(lines) == (2 if text == "1: 2" else 1)


def test_what_can_not_be_read_is_no_config(tmp_path):
    for path, message in [(tmp_path, "it is a folder"), ("a\0b", "embedded null byte")]:
        with pytest.raises(ConfigError, match=f"can't read the config.*{message}"):
            job(config=path)
    for wrong in (5, ["a"], object()):
        with pytest.raises(ConfigError, match=r"a YAML file, a mapping or a pipemill\.Job"):
            job(config=wrong)
    with pytest.raises(ConfigError, match="columns must map"):
        job(columns="text=body")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("input.limit=true", "'input.limit' in the job: must be a number .it is True."),
        ("input.limit=-1", r"'input.limit' in the job: must be at least 1 \(it is -1\)"),
        ("input.limit=99999999999999999999", "'input.limit'.*too large"),
        ("input.path=5", r"'input.path' in the job: must be a text, or a list \(it is 5\)"),
        ("output.keep=x", r"'output.keep' in the job: must be 'all', or a list \(it is 'x'\)"),
        ("output.rows_per_part=true", "'output.rows_per_part'.*must be a number"),
        ("output.rows_per_part=.inf", "'output.rows_per_part'.*finite number"),
        ("output.max_errors=.nan", r"'output.max_errors'.*at least 0 \(it is nan\)"),
        ("output.max_errors=1.5", "'output.max_errors'.*a share or a number of rows.*it is 1.5"),
        ("output.max_errors=yes", "'output.max_errors'.*a share or a number"),
        ("batching.max_tokens=false", "'batching.max_tokens'.*must be a number"),
        ("actors.min=true", "'actors.min'.*must be a number"),
        ("actors.max=0", "'actors.max'.*at least 1"),
        ("actors.num_cpus=.inf", "'actors.num_cpus'.*finite"),
        ("actors.num_gpus=.nan", "'actors.num_gpus'.*'auto', 'gpu' or 'cpu'.*it is nan"),
        ("actors.num_cpus=true", "'actors.num_cpus'.*must be a number"),
        ("input.columns={1: a}", "the key 1 of 'input.columns' in the job is not a text"),
        ("actors.num_cpus=0", r"'actors.num_cpus' in the job: must be above 0 \(it is 0\)"),
        ("model.compile=maybe", "'model.compile' in the job: must be true or false .it is 'may"),
        ("output.max_errors=5%", "'output.max_errors' in the job: must be a number .it is '5%'.$"),
        ("batching=5", "'batching' in the job: must hold keys .it is 5.$"),
        ("task=[a]", "'task' in the job: must be a text"),
        ("output.path=2020-99-99", "the value of 'output.path' is not YAML: '2020-99-99'"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(setting, message):
    with pytest.raises(ConfigError, match=message) as error:
        job([setting])
    assert len(str(error.value).splitlines()) == 1


def test_what_is_missing_is_one_line():
    with pytest.raises(ConfigError) as error:
        build_job({"task": "ner"}, [], {}, {})
    assert str(error.value) == "'model', 'input', 'output' are missing in the job"


def test_a_long_value_is_cut_in_its_message():
    with pytest.raises(ConfigError) as error:
        job(config={**GOOD, "task": ["x" * 10_000]})
    assert len(str(error.value)) < 400


def test_without_an_output_what_leaves_it_alone_needs_none(tmp_path):
    rest = {name: value for name, value in GOOD.items() if name != "output"}
    with pytest.raises(ConfigError, match="'output' is missing"):
        build_job(rest, [], {}, {})
    assert build_job(rest, [], {}, {}, needs_output=False).output.max_errors == 0.05
    keeps = build_job({**rest, "output": {"keep": ["a"]}}, [], {}, {}, needs_output=False)
    assert keeps.output.keep == ["a"]
    named = build_job(GOOD, ["output.path=p"], {}, {}, needs_output=False)
    assert named.output.path == "p"
    with pytest.raises(ConfigError, match="unknown key 'output.kep'"):
        build_job({**rest, "output": {"kep": 1}}, [], {}, {}, needs_output=False)


SEVERAL = {
    "tasks": [
        {"task": "text-classification", "model": "m", "name": "mood"},
        {"task": "fill-mask", "model": {"path": "n", "storage_options": {"key": "k"}}},
    ],
    "input": "i",
    "output": "o",
}


@pytest.mark.parametrize("form", [lambda config: config, lambda config: job(config=config)])
def test_a_setting_finds_one_of_several_tasks_by_name_or_number(form):
    settings = [
        "tasks.mood.parameters.top_k=3", "tasks.mood.model.dtype=bfloat16",
        "tasks.1.where=mood_score > 0.5", "tasks.fill-mask.model.engine=onnx",
    ]  # fmt: skip
    first, second = job(settings, config=form(SEVERAL)).tasks
    assert (first.parameters, first.model.path, first.model.dtype) == (
        {"top_k": 3},
        "m",
        "bfloat16",
    )
    assert (second.where, second.model.engine) == ("mood_score > 0.5", "onnx")
    assert second.model.storage_options == {"key": "k"}
    assert SEVERAL["tasks"][0] == {"task": "text-classification", "model": "m", "name": "mood"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tasks.mod.where=n > 1", "no task is called 'mod', or has this number; did you mean 'mo"),
        ("tasks.7.where=n > 1", "no task is called '7', or has this number; there are: mood, fill"),
        ("tasks.mood=3", "name the key of the task, too, as in tasks.mood.where="),
        ("tasks.1.wher=n > 1", "unknown key 'tasks.1.wher' in the job; did you mean 'where'"),
        ("parameters.top_k=1", r"both given: put it into each .*--set tasks.NAME.parameters=…"),
        (
            "pipeline_class=a:B",
            "pipeline_class and tasks are both given: a class of your own can't",
        ),
    ],
)
def test_a_setting_that_finds_no_task_says_what_to_do(setting, message):
    with pytest.raises(ConfigError, match=message):
        job([setting], config=SEVERAL)
    with pytest.raises(ConfigError, match="the job has no list of tasks"):
        job(["tasks.0.where=n > 1"])


def test_other_tasks_take_the_place_of_those_of_a_job():
    made = job(config=job(config=SEVERAL), tasks=({"task": "ner", "model": "z"},))
    assert [entry.task for entry in made.tasks] == [made.task] == ["ner"]
