"""A task in a pipeline of Ray Data, against transformers' pipeline row by row."""

from __future__ import annotations

import gc
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution.actor_release import ActorRelease
from pipemill.jobs.execution.pool_size import OperatorPool, choose_operator_pool
from ray.data.checkpoint import CheckpointConfig
from transformers import pipeline

import pipemill
from pipemill.errors import ConfigError
from tests.support import light, light_over_ray, tiny
from tests.support.ray_endpoint import wait_for_series

ON_CPU = {"num_gpus": "cpu", "max": 1, "num_cpus": 0.5}


@pytest.fixture
def light_task(tmp_path, monkeypatch):
    """What is asked for where the task does not matter: one whose actors need not import torch."""
    light_over_ray.install(monkeypatch)
    return {"task": "lengths", "model": light.save_model(tmp_path / "light")}


def rows(dataset: ray.data.Dataset) -> list[dict]:
    return sorted(dataset.take_all(), key=lambda row: row["n"])


def test_it_composes_and_answers_as_transformers(ray_session, models, tmp_path):
    """With rows of one and of many chunks, blocks of all sizes, and a row that fails."""
    texts = tiny.texts(37, seed=3)
    texts[5] = None
    labels = [[f"w{k}" for k in range(1 + (n * 7) % 20)] for n in range(37)]
    data = [{"n": n, "body": texts[n], "names": labels[n]} for n in range(37)]
    blocks = ray.data.from_items(data, override_num_blocks=1).filter(lambda row: row["n"] != 7)
    blocks = blocks.union(ray.data.from_items(data[7:8]), blocks.filter(lambda row: False))
    model = models["zero-shot-classification"]
    blocks.set_name("composed")
    classified = pipemill.apply(
        blocks.map(lambda row: {**row, "body": row["body"] and row["body"] + " ."}),
        task="zero-shot-classification",
        model=model,
        columns={"text": "body", "candidate_labels": "names"},
        actors=ON_CPU,
    )
    classified.drop_columns(["names"]).write_parquet(str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out").sort_by("n").to_pylist()
    failed = found.pop(5)
    assert failed["error"] == "expand: ValueError: column 'body' is null"
    assert failed["labels"] is None
    assert [row["n"] for row in found] == [n for n in range(37) if n != 5]
    plain = pipeline("zero-shot-classification", model, device="cpu")
    for row in found[:8]:
        n = row["n"]
        assert (row["body"], row["error"]) == (f"{texts[n]} .", None)
        answer = plain(row["body"], candidate_labels=labels[n])
        assert list(row["labels"]) == answer["labels"]
        np.testing.assert_allclose(row["scores"], answer["scores"], atol=1e-5)

    def count(series, outcome):
        return series.total("ray_pipemill_rows_total", job="composed", outcome=outcome)

    series = wait_for_series(lambda series: count(series, "dead"))
    assert (count(series, "done"), count(series, "dead")) == (36, 1)


class Same:
    def __call__(self, batch):
        return batch


def test_other_operators_may_have_actors(ray_session, light_task):
    dataset = ray.data.from_items([{"n": n, "text": f"text {n}"} for n in range(1200)])
    actors = {"concurrency": 1, "num_cpus": 0.4}
    dataset = pipemill.apply(dataset.map_batches(Same, **actors), **light_task)
    assert dataset.map_batches(Same, **actors).count() == 1200


def test_too_few_cpus_to_resume_from_rays_checkpoint_are_said(
    ray_session, models, tmp_path, capsys, monkeypatch
):
    dataset = ray.data.from_items([{"text": "a text"}])
    arguments = {"task": "text-classification", "model": models["text-classification"]}
    pipemill.apply(dataset, **arguments)
    assert "checkpoint" not in capsys.readouterr().err
    dataset.context.checkpoint_config = CheckpointConfig("text", str(tmp_path / "checkpoint"))
    pipemill.apply(dataset, **arguments)
    assert "Ray has 2 CPUs. Resuming from its checkpoint takes one" in capsys.readouterr().err
    monkeypatch.setattr("pipemill.jobs.apply.autoscales", lambda: True)  # it may get more
    pipemill.apply(dataset, **arguments)
    assert "checkpoint" not in capsys.readouterr().err


def test_rows_keep_their_order_when_ray_divides_a_block(ray_session, light_task):
    """Every other piece takes long, so another actor ends the next one before."""
    texts = (["slow"] * 512 + ["fast"] * 512) * 4
    dataset = ray.data.from_arrow(pa.table({"n": range(len(texts)), "text": texts}))
    table = pipemill.apply(dataset, **light_task, actors=ON_CPU | {"min": 2, "max": 2}).to_pandas()
    assert table["n"].tolist() == list(range(len(texts)))
    assert table["error"].isna().all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_missing_texts_of_pandas_fail_alone(ray_session, light_task, blocks):
    """Of rows with and without a text Ray makes objects, and of rows without any, fractions."""
    frame = pd.DataFrame({"n": range(6), "text": [None, None, None, None, "d", "e"]})
    pieces = [frame[start : start + 6 // blocks] for start in range(0, 6, 6 // blocks)]
    dataset = ray.data.from_pandas(pieces).map(lambda row: row)
    found = rows(pipemill.apply(dataset, **light_task, actors=ON_CPU))
    assert [row["again"] for row in found] == [None] * 4 + ["D", "E"]
    assert [row["error"] is None for row in found] == [False] * 4 + [True] * 2


def test_embeddings_go_into_torch_and_pickle_without_the_driver(ray_session, models, tmp_path):
    texts = tiny.texts(20, seed=1)
    pq.write_table(pa.table({"n": range(20), "text": texts}), tmp_path / "in.parquet")
    dataset = ray.data.read_parquet(str(tmp_path))
    applied = pipemill.apply(
        dataset, task="feature-extraction", model=models["feature-extraction"], actors=ON_CPU
    )
    again = ray.data.Dataset.deserialize_lineage(applied.serialize_lineage())
    (batch,) = again.select_columns(["n", "embedding"]).iter_torch_batches(batch_size=20)
    plain = pipeline("feature-extraction", models["feature-extraction"], device="cpu")
    for n, embedding in zip(batch["n"].tolist(), batch["embedding"], strict=True):
        expected = np.mean(plain(texts[n])[0], axis=0)
        np.testing.assert_allclose(embedding.numpy(), expected, atol=1e-5)


def test_images_that_ray_has_read(ray_session, models, tmp_path):
    numbers = np.random.default_rng(0)
    for n in range(3):
        pixels = numbers.integers(0, 256, (30 + n, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    dataset = ray.data.read_images(str(tmp_path), include_paths=True)
    applied = pipemill.apply(
        dataset,
        task="image-classification",
        model=models["image-classification"],
        parameters={"top_k": 2},
        actors=ON_CPU,
    )
    plain = pipeline("image-classification", models["image-classification"], device="cpu")
    for row in applied.drop_columns(["image"]).take_all():
        expected = plain(row["path"], top_k=2)
        assert row["error"] is None
        assert list(row["labels"]) == [one["label"] for one in expected]
        np.testing.assert_allclose(row["scores"], [one["score"] for one in expected], atol=1e-5)


def test_a_row_that_kills_its_process_does_not_stop_the_pipeline(ray_session, light_task):
    texts = [f"t{n}" for n in range(12)]
    texts[4] = "die"
    dataset = ray.data.from_items([{"n": n, "text": text} for n, text in enumerate(texts)])
    found = rows(pipemill.apply(dataset, **light_task, actors=ON_CPU))
    assert [row["n"] for row in found if row["error"]] == [4]
    assert found[4]["error"].startswith("regroup: WorkerDied: its process ended with exit status 9")
    assert all(row["length"] == len(row["text"]) for row in found if row["n"] != 4)


def test_a_pipeline_class_of_the_user(ray_session, models):
    texts = tiny.texts(3, seed=2, longest=15)
    applied = pipemill.apply(
        ray.data.from_items([{"n": n, "text": text} for n, text in enumerate(texts)]),
        task="mine",
        model=models["text-classification"],
        pipeline_class="tests.support.own_pipelines:Louder",
        schema={"label": "string"},
        actors=ON_CPU,
    )
    plain = pipeline("text-classification", models["text-classification"], device="cpu")
    assert [row["label"] for row in rows(applied)] == [one["label"].upper() for one in plain(texts)]


def test_a_failure_may_end_the_pipeline(ray_session, light_task):
    dataset = ray.data.from_items([{"text": None}, {"text": "a"}])
    applied = pipemill.apply(dataset, **light_task, actors=ON_CPU, on_error="raise")
    with pytest.raises(Exception, match=r"a row failed \(on_error is raise\).* 'text' is null"):
        applied.materialize()


def wait_for_free_cpus() -> float:
    """Return the CPUs that nothing holds, once they are all."""
    for _ in range(60):
        free = ray.available_resources().get("CPU", 0)
        if free == ray.cluster_resources()["CPU"]:
            break
        time.sleep(0.5)
    return free


def test_actors_end_with_a_pipeline_that_fails_though_its_error_is_kept(ray_session, light_task):
    def fail(row):
        raise ValueError("on purpose")

    gc.collect()
    all_cpus = wait_for_free_cpus()
    dataset = ray.data.from_items([{"text": "a"}] * 20)
    applied = pipemill.apply(dataset, **light_task, actors=ON_CPU)
    assert ActorRelease not in (
        ray.data.DataContext.get_current().custom_execution_callback_classes
    )
    gc.disable()
    try:
        with pytest.raises(Exception, match="on purpose") as caught:
            applied.map(fail).materialize()
        assert wait_for_free_cpus() == all_cpus
    finally:
        gc.enable()
    assert caught.value is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "text-clasification"}, "did you mean 'text-classification'"),
        ({"columns": {"text": "txt"}}, "no column 'txt' in the input"),
        ({"columns": {"txt": "text"}}, "reads no column 'txt'"),
        ({"parameters": {"top_j": 1}}, "no parameter 'top_j'; did you mean 'top_k'"),
        ({"model": "/no/where"}, "no model at /no/where"),
        ({"actors": {"mx": 1}}, "unknown key 'actors.mx'.*'max'"),
        ({"actors": {"per_node": 2}}, "actors.per_node is for pipemill.run: Ray places"),
        ({"actors": {"cluster": "local"}}, "actors.cluster is for pipemill.run: Ray places"),
        ({"actors": {"num_cpus": 99}}, r"asks for 99 CPU \(actors.num_cpus\), but the largest no"),
        ({"on_error": "drop"}, "on_error must be 'column' or 'raise', not 'drop'"),
        ({"error_column": ""}, "error_column must be the name of a column, not ''"),
        ({"error_column": "score"}, "error_column 'score' is a column that text-classification ad"),
        (
            {"task": "mine", "pipeline_class": "tests.support.own_pipelines:Words"},
            r"only answers show which columns mine adds: declare them, such as schema=",
        ),
        ({"schema": {"a": "string"}}, "the columns of text-classification are known"),
    ],
)
def test_mistakes_are_said_at_once(ray_session, models, arguments, message):
    given = {"task": "text-classification", "model": models["text-classification"], **arguments}
    with pytest.raises(ConfigError, match=message):
        pipemill.apply(ray.data.from_items([{"text": "a"}]), **given)


def test_other_inputs_are_named(ray_session):
    grouped = ray.data.from_items([{"text": "a"}]).groupby("text")
    for rows in (pa.table({"text": ["a"]}), grouped, None):
        kind = type(rows).__name__
        with pytest.raises(ConfigError, match=f"a ray.data.Dataset, not {kind}: use pipemill.run"):
            pipemill.apply(rows, task="text-classification", model="m")


def pool(nodes: list[dict[str, float]], *, autoscales: bool = False, **given) -> OperatorPool:
    return choose_operator_pool(
        ActorsSection(**{"num_gpus": 0, **given}), nodes, autoscales=autoscales
    )


def test_cpus_are_left_for_the_rest_of_the_pipeline():
    assert pool([{"CPU": 2}]) == OperatorPool(least=1, initial=2, most=2, num_cpus=0.25)
    # Reading takes the whole of it.
    assert pool([{"CPU": 1}]) == OperatorPool(least=1, initial=1, most=1, num_cpus=0)
    mixed = pool([{"CPU": 16}, {"CPU": 4}])
    assert mixed == OperatorPool(least=1, initial=2, most=20, num_cpus=0.375)
    large = pool([{"CPU": 4}], num_cpus=2)
    assert large == OperatorPool(least=1, initial=1, most=1, num_cpus=2)
    gpus = pool([{"CPU": 16, "GPU": 1}, {"CPU": 4}], num_gpus=0.125)
    assert gpus == OperatorPool(least=1, initial=8, most=8, num_cpus=0.125)


def test_what_no_node_has_is_said():
    for given in ({"num_cpus": 4}, {"num_gpus": 1}, {"num_gpus": 2, "num_cpus": 1}):
        with pytest.raises(ConfigError, match="an actor asks for .*, but the largest node of this"):
            pool([{"CPU": 2}, {"CPU": 3}], **given)
        assert pool([{"CPU": 2}], autoscales=True, **given).least == 1
    with pytest.raises(ConfigError, match=r"has 2: set actors.num_gpus to 2 or less, or to 0 for"):
        pool([{"CPU": 8, "GPU": 2}], num_gpus=4)
    assert pool([{"CPU": 0.5}]).initial == 1, "without num_cpus an actor takes less than a CPU"


def test_the_pool_grows_as_wanted():
    assert pool([{"CPU": 8}], min=3, max=4) == OperatorPool(
        least=3, initial=3, most=4, num_cpus=0.4375
    )
    assert pool([{"CPU": 2}], autoscales=True).most is None
    assert pool([{"CPU": 2}], autoscales=True, min=5, max=9).least == 5
    assert pool([{"CPU": 2}], min=5, max=9).least == 2
