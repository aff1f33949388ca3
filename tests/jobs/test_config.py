import pytest
from pipemill.jobs.config import build_job
from pipemill.jobs.errors import ConfigError
from pipemill.jobs.job import Job

GOOD = {"task": "text-classification", "model": "m", "input": "i", "output": "o"}


def job(settings=(), columns=None, config=None, **sections):
    return build_job(config or GOOD, settings, columns or {}, sections)


def test_a_path_alone_stands_for_a_section():
    made = job()
    assert (made.model.path, made.input.path, made.output.path) == ("m", "i", "o")
    assert made == build_job(None, [], {}, GOOD)


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


def test_a_yaml_file_takes_values_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "s3://bucket")
    file = tmp_path / "job.yaml"
    file.write_text("task: ner\nmodel: m\ninput: ${WHERE}/in\noutput: {path: '${WHERE}/out'}\n")
    made = job(config=file)
    assert (made.input.path, made.output.path) == ("s3://bucket/in", "s3://bucket/out")
    monkeypatch.delenv("WHERE")
    with pytest.raises(ConfigError, match=r"\$\{WHERE\}.*no such environment variable"):
        job(config=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bach": 1}, "unknown key 'bach' in the job; did you mean 'batching'"),
        ({"output": {"path": "o", "kep": "all"}}, "'output.kep'.*did you mean 'keep'"),
        ({"input": {"path": "i", "colums": {}}}, "'input.colums'.*did you mean 'columns'"),
        ({"actors": {"zzz": 1}}, "'actors.zzz'.*there are: min, max, num_gpus"),
        ({"output": None}, "'output'"),
        ({"output": {"path": "o", "rows_per_part": 0}}, "at least 1"),
        ({"input": {"path": []}}, "'input.path' in the job: names nothing"),
        ({"output": ""}, "'output.path' in the job: names nothing"),
        ({"model": " "}, "'model.path' in the job: names nothing"),
        ({"input": ["i", ""]}, "'input.path' in the job: names nothing"),
        ({"output": {"path": "o", "max_errors": True}}, "'output.max_errors'.*a number of rows"),
        ({"actors": {"min": 4, "max": 2}}, "'actors' in the job: max .2. is less than min .4."),
        ({"model": {"path": "m", "dtype": "fp8"}}, "'model.dtype'.*float32"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_right_one(change, message):
    with pytest.raises(ConfigError, match=message):
        job(config={**GOOD, **change})


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
        ({"input": {"path": "i", "limit": 3}}, {}, ["input.limit.x=3"]),
    ],
)
def test_a_section_that_is_none_is_a_message(config, more, settings):
    with pytest.raises(ConfigError, match="must hold keys, not"):
        job(settings, config={**GOOD, **config}, **more)


def test_a_missing_section_and_a_file_that_is_no_config(tmp_path):
    with pytest.raises(ConfigError, match="'model' is missing in the job"):
        job(config={k: v for k, v in GOOD.items() if k != "model"})
    with pytest.raises(ConfigError, match=r"can't read the config .*nope\.yaml: No such file"):
        job(config=tmp_path / "nope.yaml")
    (tmp_path / "data.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(ConfigError, match="data.parquet is not a config: it is not text"):
        job(config=tmp_path / "data.parquet")
    file = tmp_path / "job.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="must hold keys"):
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
