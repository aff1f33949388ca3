"""A model on a real S3 server: the same job as with its folder, and messages for what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.output.layout import STORED_MODEL
from pipemill.actors.storage import backoff
from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.jobs.config.load import make_job
from pipemill.jobs.prepare import prepare_without_output
from s3fs import S3FileSystem

import pipemill
from tests.support import s3_server, tiny
from tests.support.failing_proxy import Proxy
from tests.support.fetch_on_raylets import ROWS as FETCHED_ROWS

TEXTS = tiny.texts(6, seed=3, longest=12)


@pytest.fixture
def store(object_store, monkeypatch, request, models, tmp_path):
    """The URL of a model in a new bucket; the cache is empty."""
    object_store.start()
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    bucket = "m" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    S3FileSystem.clear_instance_cache()  # with the credentials of another test
    filesystem, _ = open_filesystem("s3://", {})
    filesystem.mkdir(bucket)
    filesystem.put(f"{models['text-classification']}/", f"{bucket}/model", recursive=True)
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    yield f"s3://{bucket}/model"
    S3FileSystem.clear_instance_cache()


def job(tmp_path, model, **more):
    return {
        "task": "text-classification",
        "model": model,
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
        **more,
    }


def answers(report):
    return report.to_arrow().to_pydict()


def test_it_is_the_job_of_the_same_folder(store, models, tmp_path, capfd):
    # In a process beside this one, as a small job runs by itself.
    first = pipemill.run(**job(tmp_path, f"{store}/", actors={}))
    assert "fetching s3://" in capfd.readouterr().err
    again = pipemill.run(**job(tmp_path, models["text-classification"]))
    assert again.added["rows"] == 0  # the same weights, so nothing is left
    folder = pipemill.run(
        **job(tmp_path, models["text-classification"], output=str(tmp_path / "folder"))
    )
    assert answers(first)["label"] == answers(folder)["label"]
    assert answers(first)["score"] == pytest.approx(answers(folder)["score"], abs=1e-6)
    assert len(set(answers(first)["label"])) > 1
    assert pipemill.verify(tmp_path / "out", sample=3).ok
    assert "fetching" not in capfd.readouterr().err

    filesystem, root = open_filesystem(store, {})
    config = json.loads(filesystem.cat_file(f"{root}/config.json"))
    filesystem.pipe_file(f"{root}/config.json", json.dumps({**config, "note": 1}).encode())
    with pytest.raises(pipemill.ConfigError, match=f"model \\({store}/, digest .* then, {store},"):
        pipemill.run(**job(tmp_path, store))


def test_a_worker_elsewhere_fetches_it_for_its_machine(store, tmp_path, monkeypatch):
    code = (
        "import pickle, sys\n"
        "load = pickle.load(open(sys.argv[1], 'rb'))\n"
        "loaded = load.loaded()\n"
        "print(loaded.pipeline(sys.argv[2])[0]['label'], loaded.pipeline.model.name_or_path)"
    )
    load = prepare_without_output(make_job(job(tmp_path, store), "the job")).load
    (tmp_path / "load").write_bytes(pickle.dumps(load))
    shutil.rmtree(tmp_path / "hf")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "load"), TEXTS[0]],
        env={**os.environ, "HF_HOME": str(tmp_path / "there")},
        capture_output=True,
        text=True,
        check=True,
    )
    label, folder = done.stdout.split()
    assert folder.startswith(str(tmp_path / "there"))
    assert not (tmp_path / "hf").exists()
    assert label == answers(pipemill.run(**job(tmp_path, store)))["label"][0]


def test_credentials_of_the_job_are_used_and_not_stored(store, object_store, tmp_path, monkeypatch):
    for name in object_store.environment():
        monkeypatch.delenv(name)
    options = {
        "key": s3_server.KEY, "secret": s3_server.SECRET, "endpoint_url": object_store.endpoint,
    }  # fmt: skip
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(pipemill.ConfigError, match="NoCredentials.*model.storage_options"):
        pipemill.preview(**job(tmp_path, store))
    wanted = job(tmp_path, {"path": store, "storage_options": options})
    made = pipemill.Job.model_validate(wanted)
    assert s3_server.SECRET not in repr(made)
    assert pipemill.run(made, settings=["output.max_errors=1"]).done == len(TEXTS)
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert s3_server.SECRET.encode() not in stored


def test_what_is_wrong_is_named_with_the_url(store, object_store, tmp_path, monkeypatch, models):
    def refused(model, **more):
        with pytest.raises((pipemill.ConfigError, pipemill.RunError)) as caught:
            pipemill.preview(**job(tmp_path, model, **more))
        return str(caught.value)

    bucket = store.rpartition("/")[0]
    assert refused(f"{bucket}/modell") == (
        f"no model at {bucket}/modell: there is no file below that URL"
    )
    assert "no model at s3://no-such-bucket/m" in refused("s3://no-such-bucket/m")
    filesystem, root = open_filesystem(bucket, {})
    filesystem.pipe_file(f"{root}/text/readme.txt", b"no model")
    assert f"{bucket}/text is not a model: there is no config.json among the 1 files" in refused(
        f"{bucket}/text"
    )
    filesystem.pipe_file(f"{root}/bare/config.json", b"{}")
    assert f"{bucket}/bare holds no weights" in refused(f"{bucket}/bare")
    filesystem.put(f"{models['fill-mask']}/", f"{root}/other", recursive=True)
    message = refused(f"{bucket}/other")
    assert message.startswith(f"{bucket}/other: the checkpoint lacks weights of BertForSeq")
    assert "hf://" in refused("hf://org/name")
    assert "model.storage_options can't be sent" in refused(
        {"path": store, "storage_options": {"key": object()}}
    )
    monkeypatch.setattr(backoff, "WAITS_S", (0.05, 0.1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    S3FileSystem.clear_instance_cache()
    assert "can't be reached" in refused(store)


def test_a_loaded_model_is_saved_in_the_output_and_read_there(store, models, tmp_path):
    pipeline = transformers.pipeline("text-classification", models["text-classification"])
    output = f"{store.rpartition('/')[0]}/out"
    first = pipemill.run(**{**job(tmp_path, pipeline, output=output), "task": pipeline.task})
    assert answers(first)["label"] == [answer["label"] for answer in pipeline(TEXTS)]
    filesystem, root = open_filesystem(output, {})
    before = {path: entry["ETag"] for path, entry in filesystem.find(root, detail=True).items()}
    (weights,) = [path for path in before if path.endswith(".safetensors")]
    assert f"/{STORED_MODEL}/" in weights
    assert list((tmp_path / "hf/pipemill/models").glob("*-*/model.safetensors"))
    assert pipemill.run(**job(tmp_path, pipeline, output=output)).added["rows"] == 0
    assert pipemill.verify(output, sample=2).ok
    after = {path: entry["ETag"] for path, entry in filesystem.find(root, detail=True).items()}
    assert after == before


def test_each_node_fetches_a_model_once_for_all_its_actors(store, object_store, tmp_path):
    """From the Hub, and from S3, where also the driver, on a third machine, fetches it."""
    tiny.save(tmp_path / "model", "Model")
    asked = []

    def count(method, path, before):
        if method == "GET" and path.endswith("model.safetensors"):
            asked.append(before)

    with Proxy(object_store.endpoint, count) as proxy:
        command = [sys.executable, "-m", "tests.support.fetch_on_raylets", str(tmp_path), store]
        done = subprocess.run(
            command,
            env={**os.environ, **object_store.environment(), "AWS_ENDPOINT_URL": proxy.endpoint},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    (told,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told["done"] == [FETCHED_ROWS, FETCHED_ROWS]
    assert told["copies"] == {"driver": 1, "one": 2, "two": 2}
    assert (told["fetched"], len(asked)) == (2, 3)
