"""On which device actors compute, and how many of them share a GPU."""

from __future__ import annotations

import os
import types
import warnings

import huggingface_hub
import pytest
from pipemill.jobs.config.job import ActorsSection, Job
from pipemill.jobs.execution import choose_device as devices
from pipemill.jobs.execution import gpus
from pipemill.jobs.execution.choose_device import (
    choose_cpu_share,
    choose_device,
    divide_nodes,
    read_ray_machines,
)
from pipemill.jobs.execution.gpus import Machine, choose_gpu_share, recommend_gpu_share
from pipemill.jobs.execution.pool_size import count_actors
from pipemill.jobs.planning.choose_engine import choose_dtype
from pipemill.pipelines.loading.model_files import ModelFiles
from pipemill.pipelines.registry import find_task

from pipemill.errors import ConfigError

GIB = 2**30
H100 = Machine(cpus=16, gpus=1, gpu_memory=79 * GIB)
T4 = Machine(cpus=4, gpus=1, gpu_memory=15 * GIB)
A100S = Machine(cpus=96, gpus=8, gpu_memory=40 * GIB)
SMALL, BASE, LARGE, HUGE = 133 * 2**20, 440 * 2**20, 1340 * 2**20, 15 * GIB


@pytest.mark.parametrize(
    ("machines", "weights", "actors", "per_gpu", "num_cpus"),
    [
        ([H100], SMALL, {}, 8, 1),
        ([H100], BASE, {}, 4, 1),
        ([H100], LARGE, {}, 2, 1),
        ([H100], HUGE, {}, 1, 1),
        ([H100], None, {}, 1, 1),
        ([T4], SMALL, {}, 4, 1),  # as many as it has CPUs
        ([T4], BASE, {}, 4, 1),
        ([T4], 6 * GIB, {}, 1, 1),
        ([A100S], SMALL, {}, 8, 1),
        ([A100S], SMALL, {"num_cpus": 4}, 3, 4),
        ([Machine(cpus=2, gpus=4, gpu_memory=22 * GIB)], SMALL, {}, 1, 0.5),
        ([H100, T4], SMALL, {}, 4, 1),  # what fits on all of them
        ([H100], SMALL, {"max": 3}, 3, 1),
        ([A100S], SMALL, {"max": 8}, 1, 1),
        ([A100S], SMALL, {"max": 9}, 2, 1),
        ([H100], HUGE, {"per_gpu": 5}, 5, 1),
        ([T4], SMALL, {"per_gpu": 8}, 8, 0.5),
    ],
)
def test_small_models_share_a_gpu(machines, weights, actors, per_gpu, num_cpus):
    share = choose_gpu_share(machines, ActorsSection(**actors), weights)
    assert (share.per_gpu, share.num_cpus) == (per_gpu, num_cpus)
    # So that Ray, too, finds room for so many, and for no more.
    assert int(1 / share.num_gpus + 1e-9) == per_gpu
    assert share.num_gpus * per_gpu <= 1


@pytest.mark.parametrize(
    ("machine", "weights", "actors", "host", "per_gpu"),
    [
        (H100, HUGE, {}, 0.9, 1),
        (H100, HUGE, {}, 2.1, 3),  # as many as prepare rows while the GPU computes for a second
        (H100, HUGE, {}, 20, 4),  # as many as its memory holds
        (H100, LARGE, {}, 0.9, 2),  # not fewer than without a measurement
        (T4, SMALL, {}, 30, 4),  # as many as there are CPUs
        (H100, HUGE, {"per_gpu": 2}, 9, 2),
        (H100, HUGE, {"num_gpus": 0.5}, 9, None),
        (H100, None, {}, 9, 1),
    ],
)
def test_a_gpu_gets_as_many_actors_as_keep_it_busy(
    machine, weights, actors, host, per_gpu, monkeypatch
):
    one = ("GPU", machine.gpu_memory)
    monkeypatch.setattr(gpus, "find_gpus", lambda: [one])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(int(machine.cpus)))
    share = recommend_gpu_share(ActorsSection(**actors), weights, host=host, device=1.0)
    assert (share and share.per_gpu) == per_gpu


def test_no_actors_share_what_is_no_gpu():
    assert recommend_gpu_share(ActorsSection(), SMALL, host=1.0, device=1.0) is None


@pytest.mark.parametrize("per_gpu", range(1, 40))
def test_every_number_of_actors_fits_on_a_gpu(per_gpu):
    share = choose_gpu_share([H100], ActorsSection(per_gpu=per_gpu), None)
    assert int(1 / share.num_gpus + 1e-9) == per_gpu
    assert share.num_gpus * per_gpu <= 1


@pytest.mark.parametrize(
    ("cpus", "given", "share"),
    [
        ([16], {"per_node": 2}, 8),
        ([4, 96, 96], {"per_node": 2}, 48),  # not on the small head
        ([16], {"per_node": 2, "placement": "staged"}, 7.75),  # and room for tasks
        ([16], {"per_node": 3}, 5.33),
        ([1], {"per_node": 500}, 0.01),
    ],
)
def test_actors_of_a_node_share_its_cpus(cpus, given, share):
    actors = ActorsSection(num_gpus=0, **given)
    assert choose_cpu_share([Machine(cpus=one) for one in cpus], actors) == share
    divided = ActorsSection(num_gpus=0, num_cpus=share)
    assert max(count_actors({"CPU": one}, divided) for one in cpus) <= given["per_node"]


def test_only_nodes_with_gpus_are_divided_for_gpus():
    nodes = [Machine(cpus=96), Machine(cpus=16, gpus=1)]
    assert choose_cpu_share(nodes, ActorsSection(num_gpus=0.5, per_node=2)) == 8
    with pytest.raises(ConfigError, match=r"per_node is 2, but this Ray cluster has no node yet"):
        choose_cpu_share(nodes, ActorsSection(num_gpus=2, per_node=2))


def test_the_number_of_a_divided_node_is_stored(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "find_machines", lambda cluster, joins: [Machine(cpus=16)])
    divided = divide_nodes(job(tmp_path, num_gpus=0, per_node=4))
    assert Job.model_validate(divided.model_dump(exclude_defaults=True)).actors.num_cpus == 4
    assert divide_nodes(job(tmp_path, num_gpus=0, per_node=4), here=True).actors.num_cpus == 1
    with pytest.raises(ValueError, match=r"num_cpus \(2.0\) is given too: leave one"):
        job(tmp_path, num_cpus=2, per_node=4)


def test_a_cluster_names_its_gpus():
    nodes = [
        {"CPU": 8.0, "memory": 1e9},
        {"CPU": 12.0, "GPU": 1.0, "accelerator_type:T4": 1.0},
        {"CPU": 192.0, "GPU": 8.0, "accelerator_type:A100-80G": 1.0},
        {"CPU": 16.0, "GPU": 2.0},
    ]
    found = read_ray_machines(nodes)
    assert [(m.cpus, m.gpus, m.gpu_memory // GIB, m.gpu_name) for m in found] == [
        (8, 0, 15, "GPU"),
        (12, 1, 15, "T4"),
        (192, 8, 40, "A100-80G"),
        (16, 2, 15, "GPU"),
    ]


def job(folder, **actors) -> Job:
    return Job(task="ner", model=str(folder), input="i", output="o", actors=actors)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    return ModelFiles(str(tmp_path))


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(gpus, "find_gpus", lambda: [("NVIDIA X", 80 * GIB)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def test_gpus_are_used_where_there_are_any(one_gpu, model, tmp_path, capsys):
    chosen = choose_device(job(tmp_path), model).actors
    assert (chosen.num_gpus, chosen.num_cpus) == (0.125, 1)
    assert "device: NVIDIA X, 8 actors on each" in capsys.readouterr().err


def test_vllm_has_a_gpu_for_itself(one_gpu, model, tmp_path):
    """It takes most of the memory when it starts, however small the model is."""
    model_section = {"path": str(tmp_path), "engine": "vllm"}
    alone = Job(task="text-generation", model=model_section, input="i", output="o")
    assert choose_device(alone, model).actors.num_gpus == 1
    tasks = [{"task": "ner", "model": "m"}, {"task": "text-generation", "model": model_section}]
    assert choose_device(Job(tasks=tasks, input="i", output="o"), model).actors.num_gpus == 1


def test_a_model_on_the_hub_counts_before_its_weights_are_here(one_gpu, tmp_path, monkeypatch):
    """Its config.json is here already: the job was checked with it."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    weights = types.SimpleNamespace(rfilename="model.safetensors", size=1000)
    info = types.SimpleNamespace(siblings=[weights])
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(config))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    on_hub = ModelFiles("org/model", "0123abcd")
    assert choose_device(job(tmp_path), on_hub).actors.num_gpus == 0.125


@pytest.mark.parametrize("how", [{"here": True}, {"placement": "local"}])
def test_a_process_alone_has_the_whole_gpu(one_gpu, model, tmp_path, how):
    here, actors = how.pop("here", False), how
    assert choose_device(job(tmp_path, **actors), model, here=here).actors.num_gpus == 1


def test_cpus_are_used_where_there_is_no_gpu(monkeypatch, model, tmp_path, capsys):
    monkeypatch.setattr(gpus, "find_gpus", list)
    assert choose_device(job(tmp_path), model).actors.num_gpus == 0
    assert "device: CPU, no GPU found" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"num_gpus is gpu, but this machine has no GPU"):
        choose_device(job(tmp_path, num_gpus="gpu"), model)


def test_a_job_with_its_numbers_is_stored_without_a_warning(monkeypatch, one_gpu, model, tmp_path):
    """Pydantic warns, on the terminal, of a value that is not exactly of a field's type."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_device(job(tmp_path), model).model_dump()
        choose_device(job(tmp_path, placement="local"), model).model_dump()
        choose_device(job(tmp_path, num_gpus="cpu"), model).model_dump()


def test_cpus_can_be_forced(one_gpu, model, tmp_path):
    assert choose_device(job(tmp_path, num_gpus="cpu"), model).actors.num_gpus == 0


@pytest.mark.parametrize("number", [0, 1, 0.25])
def test_numbers_are_left_as_they_are(one_gpu, model, tmp_path, number, capsys):
    given = job(tmp_path, num_gpus=number)
    assert choose_device(given, model) is given
    assert not capsys.readouterr().err


def test_gpus_that_no_model_uses_are_told(one_gpu, model, tmp_path, capsys):
    given = job(tmp_path, num_gpus=2)
    assert choose_device(given, model) is given
    assert "actors.num_gpus is 2, but the model is on the first GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        {"task": "text-generation", "model": {"path": "m", "engine": "vllm"}},
        {"task": "text-classification", "model": "m", "pipeline_class": "my.code:Own"},
        {"task": "my-task", "model": "m"},
    ],
)
def test_engines_and_own_code_may_use_several_gpus(one_gpu, model, given, capsys):
    several = Job(**given, input="i", output="o", actors={"num_gpus": 2})
    assert choose_device(several, model) is several
    assert not capsys.readouterr().err


def test_a_number_of_gpus_is_not_divided_again(tmp_path):
    with pytest.raises(ValueError, match=r"per_gpu \(4\) is for num_gpus auto or gpu"):
        job(tmp_path, num_gpus=1, per_gpu=4)


def test_ray_gives_whole_gpus_above_one(tmp_path):
    with pytest.raises(ValueError, match=r"num_gpus \(1.5\) must be whole if it is above 1"):
        job(tmp_path, num_gpus=1.5)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["a", "b"]),
        ("", []),
        ("-1", []),
        ("1", ["b"]),
        ("GPU-5f", ["a"]),
        ("1,7,0", ["b"]),
        ("1,0", ["b", "a"]),
    ],
)
def test_only_visible_gpus_count(monkeypatch, visible, found):
    monkeypatch.setattr(gpus, "_has_torch_cuda", lambda: True)
    monkeypatch.setattr(gpus, "_ask_driver", lambda: [("a", 1), ("b", 2)])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [name for name, _ in gpus.find_gpus()] == found


@pytest.mark.parametrize(
    ("then", "num_gpus", "now"),
    [("auto", 1, "auto"), ("bfloat16", 0, "bfloat16"), ("float32", 1, "bfloat16")],
)
def test_an_output_keeps_the_numbers_it_began_with(tmp_path, then, num_gpus, now):
    """A spot cluster may come back without GPUs."""
    kind = find_task("text-classification")
    assert choose_dtype(job(tmp_path, num_gpus=num_gpus), kind, False, then) == now
