"""What `pipemill plan` says of a job, against counting by hand."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.jobs import plan
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.config.load import build_job
from pipemill.jobs.measuring import benchmark, run_time, trial
from pipemill.jobs.measuring.worker_pod import estimate_worker_pod
from pipemill.jobs.output.split_plan import NOTHING
from pipemill.jobs.planning.sampling.infer_parameters import infer_parameters
from pipemill.jobs.planning.sampling.sample_rows import sample_rows
from pipemill.jobs.prepare import prepare_without_output
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import find_task

import pipemill
from pipemill.errors import RunError, StoreError
from tests.references.make_static_embeddings import HERE
from tests.support import tiny

TEXTS = tiny.texts(70, seed=9, longest=40)
TEXTS[9] = TEXTS[50] = TEXTS[2]
MOST = 24


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = pa.table({"id": range(70), "body": TEXTS})
    pq.write_table(rows.slice(0, 30), folder / "a.parquet")
    pq.write_table(rows.slice(30), folder / "b.parquet")
    return folder


def job(models, data, **sections):
    wanted = {
        "task": "text-classification",
        "model": models["text-classification"],
        "input": str(data),
        "output": {"path": str(data.parent / "out"), "rows_per_part": 10},
        **sections,
    }
    return build_job(wanted, [], {"text": "body"}, {})


def lengths(models) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["text-classification"])
    return np.array([len(ids) for ids in tokenizer(TEXTS)["input_ids"]])


def test_what_can_be_counted_is_exact(models, data):
    whole = lengths(models)
    sizes = np.minimum(whole, MOST)
    parameters = {"truncation": True, "max_length": MOST}
    found = plan.plan(job(models, data, parameters=parameters), rows=1000, seconds=0.01)
    assert (found.rows, found.sampled, found.failed, found.chunks) == (70, 70, 0, 70)
    assert found.tokens == sizes.sum()
    assert found.truncated == {
        "rows": np.count_nonzero(whole > MOST),
        "tokens": (whole - sizes).sum(),
    }
    assert found.truncated["rows"] > 5
    batches = [sizes[i : i + 32] for i in range(0, 70, 32)]
    padded = sum(len(batch) * batch.max() for batch in batches)
    assert found.padding["in batches of 32"] == round(1 - sizes.sum() / padded, 4) > 0.1
    assert found.padding["sorted"] < 0.1
    assert found.padding["packed"] == 0
    cut = transformers.AutoTokenizer.from_pretrained(models["text-classification"])
    distinct = {tuple(ids) for ids in cut(TEXTS, truncation=True, max_length=MOST)["input_ids"]}
    assert found.duplicates == pytest.approx(1 - len(distinct) / 70)
    assert len(distinct) <= 68
    for top, count in found.lengths:
        assert count == np.count_nonzero((whole > top // 2) & (whole <= top))
    assert sum(count for _, count in found.lengths) == 70
    assert found.lengths[-1][0] > MOST, "what was cut counts"
    assert found.rows_per_second > 0
    assert 0 < found.host_share < 1
    assert re.search(r"stages +model \d+%, rows and answers \d+%", str(found))
    assert found.seconds == pytest.approx(70 / found.rows_per_second)
    assert found.gpu_hours is None
    shared = dataclasses.replace(found, per_gpu=3)
    assert json.loads(shared.to_json())["recommended"]["actors"] == {"per_gpu": 3}
    assert re.search(r"recommended +actors: \{per_gpu: 3\}", str(shared))
    assert "per_gpu" not in found.to_json() + str(found)


def test_windows_are_chunks_and_lose_nothing(models, data):
    found = plan.plan(job(models, data, parameters={"max_length": MOST}), rows=1000, seconds=0.01)
    assert found.chunks > 70
    assert found.tokens >= lengths(models).sum()
    assert found.truncated == {"rows": 0, "tokens": 0}


def test_classes_double_from_the_shortest_to_the_longest():
    assert plan.count_by_length(np.array([3, 4, 5, 17])) == [(4, 2), (8, 1), (16, 0), (32, 1)]
    assert plan.count_by_length(np.array([1, 2, 2])) == [(1, 1), (2, 2)]


def test_the_verb_ends_in_json_and_writes_nothing(models, data, tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text(
        f"task: text-classification\nmodel: {models['text-classification']}\n"
        f"input: {{path: '{data}', columns: {{text: body}}}}\noutput: {tmp_path}/out\n"
        "batching: {max_tokens: 300}\nactors: {max: 3}\n"
    )
    assert main(["plan", str(config), "--seconds", "0.01", "--rows", "20"]) == 0
    out, err = capsys.readouterr()
    assert err.count("device: ") == 1
    told = json.loads(out.splitlines()[-1])
    assert (told["rows"], told["sampled"]) == (70, 20)
    assert told["recommended"] == {"batching": {"max_tokens": 300}}
    assert "on one actor" in err
    time = r"\d+ (?:s|min)"  # on a busy machine a start takes minutes
    assert re.search(rf"run +about {time} \({time} to {time}\), {time} of it the start; ", err)
    assert "cost" not in told
    held = {"cpu": "2", "memory": told["pod"]["limits"]["memory"]}
    assert told["pod"] == {"requests": held, "limits": held}
    assert f'requests and limits {{cpu: "2", memory: {held["memory"]}}} (one actor)' in err
    assert "█" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "job.yaml"]


@pytest.mark.parametrize(
    ("actors", "wanted"),
    [
        ({"num_gpus": 0}, {"actors": 1, "cpus": 2, "memory_gib": 5, "gpus": 0}),
        ({"num_gpus": 0, "num_cpus": 3.5}, {"actors": 1, "cpus": 5, "memory_gib": 5, "gpus": 0}),
        ({"num_gpus": 1}, {"actors": 1, "cpus": 2, "memory_gib": 5, "gpus": 1}),
        ({"num_gpus": 2}, {"actors": 1, "cpus": 2, "memory_gib": 5, "gpus": 2}),
        ({"num_gpus": 0.25}, {"actors": 4, "cpus": 5, "memory_gib": 16, "gpus": 1}),
    ],
)
def test_a_pod_has_room_for_the_actors_of_a_gpu_and_for_ray(actors, wanted):
    """(actors * 2 GiB * 1.25 + 1 GiB) / 0.7, rounded up, is 5.0 and 15.7."""
    pod = estimate_worker_pod(ActorsSection(**actors), 2 * 2**30)
    assert dataclasses.asdict(pod) == wanted
    limits = pod.to_manifest()["limits"]
    assert limits.get("nvidia.com/gpu", 0) == wanted["gpus"]
    assert limits["memory"] == f"{wanted['memory_gib']}Gi"


def test_rows_come_from_several_places_and_neighbours_stay_together(models, data):
    prepared = prepare_without_output(job(models, data))
    assert len(prepared.plan.splits) == 7
    few = sample_rows(prepared.source, prepared.plan.splits, 12)
    bodies = few.rows["body"].to_pylist()
    assert bodies == [TEXTS[i] for first in (0, 20, 40, 60) for i in range(first, first + 3)]
    assert (few.whole, few.unread) == (70, 0)
    first = sample_rows(prepared.source, prepared.plan.splits, 3, places=1)
    assert first.rows["body"].to_pylist() == TEXTS[:3]
    everything = sample_rows(prepared.source, prepared.plan.splits, 1000).rows["body"].to_pylist()
    assert sorted(everything) == sorted(TEXTS)


@pytest.mark.parametrize("is_empty", [True, False])
def test_of_millions_of_splits_without_rows_some_are_looked_at(is_empty):
    asked = []

    class Barren:
        def read(self, split):
            asked.append(split)
            if is_empty:
                return Batch(pa.table({"text": pa.array([], pa.string())}))
            raise ValueError("what is read is no text")

    why = "the input is empty" if is_empty else "what is read is no text"
    with pytest.raises(RunError, match=f"no input rows could be read: {why}"):
        sample_rows(Barren(), [NOTHING] * 3000, 10)
    assert len(asked) == 1000


def test_a_store_that_does_not_answer_is_not_asked_for_every_split():
    asked = []

    class Away:
        def read(self, split):
            asked.append(split)
            raise StoreError("the store can't be reached, tried 7 times over 61 s")

    def read_rows(count):
        return sample_rows(Away(), [NOTHING] * 1000, count).rows

    with pytest.raises(RunError, match="can't be reached, tried 7 times over 61 s; run again"):
        read_rows(10)
    assert len(asked) == 1
    # What the rows would have decided is not stored as if they decided nothing.
    task = find_task("feature-extraction")
    spec = dataclasses.replace(task, infer_parameters={"pooling": lambda values, model: "mean"})
    with pytest.raises(RunError, match="can't be reached"):
        infer_parameters(spec, {}, ModelFiles("m"), read_rows, {"text": "text"})


def test_rows_decide_of_a_model_on_the_hub_too(models, monkeypatch):
    folder = Path(models["fill-mask"])
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda path, name, revision: str(folder / name)
    )
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda path, name, revision: str(folder / name)
    )
    mask = transformers.AutoTokenizer.from_pretrained(folder).mask_token
    rows = pa.table({"text": ["none", f"{mask} and {mask}"]})
    model, spec = ModelFiles("org/filler", "0123abcd"), find_task("fill-mask")
    found = infer_parameters(spec, {}, model, lambda count: rows, {"text": "text"})
    assert found == {"several_masks": True}


def test_rows_that_cannot_be_read_are_counted(models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [json.dumps({"body": text}) for text in TEXTS[:9]]
    lines[4] = "{"
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    found = plan.plan(job(models, folder), rows=9, seconds=0.01)
    assert (found.rows, found.sampled, found.failed) == (9, 9, 1)


@pytest.mark.parametrize(("rows", "said"), [(70, "70 in all"), (20, r"about \d+ in all")])
def test_a_number_of_rows_that_is_estimated_is_said_to_be(models, tmp_path, rows, said):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        lines = [json.dumps({"body": text}) for text in TEXTS[number::7]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    uncounted = job(models, folder, output=str(tmp_path / "out"))
    found = plan.plan(uncounted, rows=rows, seconds=0.01)
    assert found.rows_exact is (rows == 70)
    assert re.search(rf"rows +{said}; the figures below are from {rows} of them", str(found))


def test_in_python_it_takes_what_run_takes_and_no_output(models, data):
    found = pipemill.plan(
        {"task": "text-classification", "input": str(data)},
        settings=["batching.max_tokens=300"],
        columns={"text": "body"},
        model=models["text-classification"],
        rows=20,
        seconds=0.01,
    )
    assert (found.rows, found.sampled, found.max_tokens) == (70, 20, 300)
    assert found.seconds == pytest.approx(70 / found.rows_per_second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.rows = 0
    page = found._repr_html_()
    assert "70 in all" in page
    assert page.count("<table>") == 2, "the facts and the histogram"
    assert "█" in page
    with pytest.raises(pipemill.ConfigError, match="seconds must be a number above 0, not 0"):
        pipemill.plan({}, seconds=0)


def test_texts_without_a_known_token_are_measured(tmp_path):
    job = {"task": "feature-extraction", "model": str(HERE / "model2vec_quantized")}
    unknown = [{"text": "☃ ☃"}] * 3
    plan = pipemill.plan(**job, input=unknown, seconds=0.1)
    assert (plan.rows, plan.tokens) == (3, 0)
    assert plan.rows_per_second > 0
    plot = str(tmp_path / "plot.png")
    tuning = pipemill.tune(**job, input=unknown, seconds=0.1, plot=plot)
    assert [s.rows_per_second > 0 for s in tuning.settings if s.how == "sorted"] == [True]


def test_a_run_is_estimated_with_its_start_and_its_cost(models, data, capsys):
    def estimate(placement, **more):
        settings = [f"actors.placement={placement}", "batching.max_tokens=300"]
        return pipemill.plan(job(models, data), settings=settings, seconds=0.01, **more)

    here = estimate("fused", price_per_hour=3.6).run
    assert (here.placement, here.actors) == ("fused", min(os.cpu_count() or 1, 7))
    local = estimate("local")
    assert (local.run.placement, local.run.actors, local.cost) == ("local", 1, None)
    assert here.start > local.run.start + 3, "Ray, and a process that checks the model"
    many = estimate("fused", replicas=50, price_per_hour=3.6)
    assert many.run.actors == 50
    # Seven splits: the others have nothing to do.
    work = many.run.expected - many.run.start
    assert work == pytest.approx(many.seconds / 7)
    for run in (here, local.run, many.run):
        assert 0 < run.start < run.expected
        assert run.least < run.expected < run.most
    assert many.cost == pytest.approx((many.run.least * 50 / 1000, many.run.most * 50 / 1000))
    told = json.loads(many.to_json())
    assert (told["price_per_hour"], told["run"]["actors"]) == (3.6, 50)
    assert told["cost"] == pytest.approx(many.cost, abs=1e-4)
    assert re.search(r"^cost +[\d.]+ to [\d.]+$", str(many), re.MULTILINE)


def test_a_cold_disk_counts_for_the_first_process_alone(models, data, monkeypatch):
    started = trial.start_trial(job(models, data, batching={"max_tokens": 300}), 20)
    setting = benchmark.measure_budget(started, 300, started.packs, 0.01)

    def start(seconds):
        taken = dataclasses.replace(started, imports_seconds=seconds)
        return run_time.estimate_run_time(taken, setting, 2).start

    assert start(3.0) < start(6.0) < start(60.0) == start(600.0)


def test_a_price_and_a_number_of_actors_are_positive(models, data, capsys):
    with pytest.raises(pipemill.ConfigError, match="replicas"):
        pipemill.plan(job(models, data), replicas=0)
    assert main(["plan", "job.yaml", "--price-per-hour", "free"]) == 2
    assert "--price-per-hour must be a number above 0, not 'free'" in capsys.readouterr().err
    assert main(["plan", "job.yaml", "--replicas", "0"]) == 2
    assert "--replicas must be a whole number of at least 1" in capsys.readouterr().err


def test_actors_share_the_cores_with_what_else_runs(monkeypatch):
    monkeypatch.setattr(run_time.os, "cpu_count", lambda: 4)

    def crowding(count, load, **actors):
        monkeypatch.setattr(run_time.psutil, "getloadavg", lambda: (load, 0, 0))
        return run_time._measure_crowding(count, ActorsSection(**actors))

    assert crowding(4, 1.0) == 1, "only this process"
    assert crowding(4, 5.0) == pytest.approx(8 / 5), "eight on four cores, and before five"
    assert crowding(2, 5.0) == pytest.approx(6 / 5)
    assert crowding(2, 6.0, num_cpus=2) == pytest.approx(8 / 6)
    assert crowding(4, 5.0, num_gpus=1) == 1
