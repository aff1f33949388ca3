"""A job as the text that a cluster runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from pipemill.jobs.submission import check_cluster
from pipemill.jobs.submission.check_cluster import find_problem, main
from pipemill.jobs.submission.job_text import write_job_text
from pipemill.jobs.submission.shipped_code import copy_package, list_requirements
from pipemill.jobs.submit import find_below

from pipemill.errors import ConfigError

JOB = {"task": "text-classification", "model": "m", "input": "in.parquet", "output": "out"}


def write(environment=None, **sections):
    return write_job_text({**JOB, **sections}, "the job", environment or {})


def test_local_paths_become_absolute_and_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    job = write(
        input={"path": ["a/*.parquet", "s3://b/c", "zip://x::./z.zip"], "media_roots": ["pictures"]}
    )
    sent = yaml.safe_load(job.text)
    assert sent["model"]["path"] == f"{tmp_path}/m"
    assert sent["input"]["path"][:2] == [f"{tmp_path}/a/*.parquet", "s3://b/c"]
    assert sent["input"]["media_roots"] == [f"{tmp_path}/pictures"]
    assert job.output == sent["output"]["path"] == f"{tmp_path}/out"
    assert list(job.local_paths) == [
        f"{tmp_path}/{name}" for name in ("m", "a/*.parquet", "pictures", "out")
    ]


def test_so_do_the_models_of_several_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    entries = [{"task": "fill-mask", "model": model} for model in ("m", {"path": "org/name"})]
    entries[1]["name"] = "b"
    sections = {"tasks": entries, "input": "in.parquet", "output": "out"}
    job = write_job_text(sections, "the job", {})
    sent = yaml.safe_load(job.text)
    assert [entry["model"]["path"] for entry in sent["tasks"]] == [f"{tmp_path}/m", "org/name"]
    assert f"{tmp_path}/m" in job.local_paths
    entries[1]["model"] = {"path": "s3://b/m", "storage_options": {"secret": "x"}}
    with pytest.raises(ConfigError, match=r"model.storage_options.secret can't be sent"):
        write_job_text(sections, "the job", {})


def test_names_of_the_hub_and_urls_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = write(model="org/name", input="hf://datasets/a/b", output="s3://b/out/")
    sent = yaml.safe_load(job.text)
    assert [sent[name]["path"] for name in ("model", "input", "output")] == [
        "org/name", "hf://datasets/a/b", "s3://b/out/",
    ]  # fmt: skip
    assert job.local_paths == ()


def test_variables_are_filled_in_on_the_cluster(monkeypatch):
    monkeypatch.setenv("MOST", "3")
    monkeypatch.setenv("SECRET_KEY", "abc")
    options = {"key": "${SECRET_KEY}", "endpoint_url": "http://s3"}
    job = write(
        {"SENT": "x"},
        input={"path": "${SENT}/in", "storage_options": options},
        output="${WHERE}/out",
        actors={"max": "${MOST}"},  # a number only where it is filled in
    )
    assert "abc" not in job.text
    assert yaml.safe_load(job.text)["input"]["storage_options"] == options
    assert job.variables == ("SECRET_KEY", "WHERE", "MOST")
    assert job.output == "${WHERE}/out"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"output": {"path": "s3://b", "storage_options": {"client_kwargs": {"aws_key": "x"}}}},
            r"^output.storage_options.client_kwargs.aws_key can't be sent.* \$\{NAME\}.*--env NAME",
        ),
        ({"parameters": {"function": {1}, "other": object()}}, "can't be written to a config"),
        ({"model": None}, "model"),
        ({"parameters": {"labels": ["x" * 99] * 2000}}, r"20\d,\d+ bytes of YAML, .* columns of"),
        ({"tusk": 1}, "unknown key 'tusk' in the job; did you mean 'task'"),
    ],
)
def test_what_can_not_be_sent_is_named(sections, message):
    with pytest.raises(ConfigError, match=message):
        write(**sections)


def test_rows_in_this_process_can_not_be_sent():
    datasets = pytest.importorskip("datasets")
    for rows in (datasets.Dataset.from_dict({"text": ["a"]}), "-"):
        with pytest.raises(ConfigError, match="rows are in this process, .* write them"):
            write(input={"path": rows})


def test_the_jobs_data_stays_when_its_folder_travels(tmp_path):
    paths = ["in.parquet", "data/out", "jobs/out", "../elsewhere", "."]
    absolute = [str((tmp_path / path).resolve()) for path in paths]
    # Ray applies the patterns to pipemill's folders, too.
    assert list(find_below(tmp_path, absolute)) == ["/in.parquet", "/data/out"]


def test_the_package_that_travels_is_that_of_a_wheel(tmp_path):
    package = copy_package(tmp_path)
    for name in ("py.typed", "jobs/report.html.jinja", "actors/split.py", "configs/decision.yaml"):
        assert (package / name).is_file(), name
    assert not list(package.rglob("__pycache__"))


def test_what_a_cluster_lacks_is_named(capsys):
    assert main(list_requirements()) == 0
    assert any(text.startswith("transformers>=") for text in list_requirements())
    assert find_problem("pyarrow>=3.0rc1") == ""
    assert main(["no-such-library>=1", "pyarrow>=9999.1"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"pipemill: the cluster's Python ({sys.executable}) lacks")
    assert "no-such-library>=1 is missing; pyarrow>=9999.1 is needed, and " in message
    assert message.endswith(" is installed. Install it on every node\n")
    assert "Traceback" not in message


def test_a_python_on_the_path_that_is_not_that_of_ray_is_named():
    """As on a head that was started by `/opt/venv/bin/ray`, without that on its PATH."""
    command = [sys.executable, "-I", "-S", check_cluster.__file__, "ray>=2.60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ray>=2.60 is missing. It is not the Python of the cluster's Ray" in done.stderr


def test_models_that_a_cluster_can_not_read_are_refused(tmp_path, monkeypatch, models):
    transformers = pytest.importorskip("transformers")
    pipeline = transformers.pipeline("text-classification", models["text-classification"])
    with pytest.raises(ConfigError, match="the model is the loaded BertForSeq.*, in this process"):
        write(model=pipeline)
    secret = {"path": "s3://b/m/", "storage_options": {"secret": "abc"}}
    with pytest.raises(ConfigError, match="model.storage_options"):
        write(model=secret)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    sent = yaml.safe_load(write(model={"path": "org/name", "adapter": "a"}).text)
    assert sent["model"] == {"path": "org/name", "adapter": f"{tmp_path}/a"}
