"""The examples for clusters: fields that exist, versions that agree, right commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import kubernetes_validate
import pytest
import yaml
from pipemill.jobs.config.job import Job
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs/examples"
KUBERNETES = EXAMPLES / "kubernetes"
FILES = [path for path in EXAMPLES.rglob("*") if path.is_file()]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


class Fields(BaseModel):
    """A part of a manifest: what the examples use of KubeRay's v1, no more."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Resources(Fields):
    requests: dict[str, str]
    limits: dict[str, str]


class Container(Fields):
    name: str
    image: str
    ports: list[dict[str, str | int]] = []
    env: list[dict] = []
    envFrom: list[dict] = []
    lifecycle: dict[Literal["preStop"], dict[Literal["exec"], dict[str, list[str]]]] = {}
    resources: Resources
    volumeMounts: list[dict] = []


class Pod(Fields):
    containers: list[Container]
    terminationGracePeriodSeconds: int = 30
    tolerations: list[dict[Literal["key", "operator", "value", "effect"], str]] = []
    nodeSelector: dict[str, str] = {}
    volumes: list[dict] = []


class Template(Fields):
    spec: Pod


class Head(Fields):
    rayStartParams: dict[str, str]
    template: Template


class Workers(Head):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class Autoscaler(Fields):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int


class ClusterSpec(Fields):
    rayVersion: str
    authOptions: dict[Literal["mode"], Literal["token", "disabled"]]
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: Autoscaler | None = None
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class JobSpec(Fields):
    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    suspend: bool = False
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    rayClusterSpec: ClusterSpec


class Group(Fields):
    """The keys of `head`, `worker` of the Helm chart."""

    image: dict[Literal["repository", "tag", "pullPolicy"], str] = {}
    rayVersion: str | None = None
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: Autoscaler | None = None
    groupName: str = ""
    replicas: int = 0
    minReplicas: int = 0
    maxReplicas: int = 0
    rayStartParams: dict[str, str] = {}
    envFrom: list[dict] = []
    tolerations: list[dict] = []
    nodeSelector: dict[str, str] = {}
    lifecycle: dict = {}
    resources: Resources


class ChartValues(Fields):
    fullnameOverride: str
    image: dict[Literal["repository", "tag", "pullPolicy"], str]
    common: dict[Literal["containerEnv"], list[dict]]
    head: Group
    worker: Group


def read(name: str) -> dict[str, dict]:
    """Return the objects of a manifest by their kind."""
    objects = yaml.safe_load_all((KUBERNETES / name).read_text())
    return {one["kind"]: one for one in objects}


def cluster_specs() -> dict[str, ClusterSpec]:
    jobs = {name: read(name)["RayJob"] for name in ("rayjob.yaml", "rayjob-kueue.yaml")}
    specs = {name: JobSpec(**job["spec"]).rayClusterSpec for name, job in jobs.items()}
    return specs | {"raycluster.yaml": ClusterSpec(**read("raycluster.yaml")["RayCluster"]["spec"])}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_says_at_its_top_that_it_is_untried(path):
    top = "\n".join(path.read_text().splitlines()[:8])
    assert re.search(r"[Ii]t was not (run|built|started|installed)", top)
    assert max(map(len, path.read_text().splitlines())) <= 120


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-kueue.yaml"])
def test_a_job_on_kubernetes_runs_a_valid_config_on_gpus(name):
    objects = read(name)
    spec = JobSpec(**objects["RayJob"]["spec"])
    (command, config) = spec.entrypoint.rsplit(" ", 1)
    (mount,) = spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].volumeMounts
    assert (command, config) == ("pipemill run", f"{mount['mountPath']}/job.yaml")
    job = Job.model_validate(yaml.safe_load(objects["ConfigMap"]["data"]["job.yaml"]))
    # A cluster that begins with no GPU is otherwise taken for one of CPUs, and `max` for 1.
    assert job.actors.num_gpus == 1
    assert job.actors.max == spec.rayClusterSpec.workerGroupSpecs[0].maxReplicas
    assert spec.shutdownAfterJobFinishes
    queued = "kueue.x-k8s.io/queue-name" in objects["RayJob"]["metadata"].get("labels", {})
    assert queued == spec.suspend == (name == "rayjob-kueue.yaml")
    assert queued != spec.rayClusterSpec.enableInTreeAutoscaling


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-kueue.yaml", "raycluster.yaml"])
def test_a_cluster_on_kubernetes_has_a_head_without_work_and_workers_that_may_go(name):
    spec = cluster_specs()[name]
    assert f"\nray=={spec.rayVersion}\n" in CONSTRAINTS
    head, (workers,) = spec.headGroupSpec, spec.workerGroupSpecs
    assert head.rayStartParams == {"num-cpus": "0"}
    assert "nvidia.com/gpu" not in head.template.spec.containers[0].resources.limits
    (worker,) = workers.template.spec.containers
    assert worker.resources.requests == worker.resources.limits
    assert worker.resources.limits["nvidia.com/gpu"] == "1"
    (notice,) = re.findall(r"ray stop --grace-period (\d+)", json.dumps(worker.lifecycle))
    assert int(notice) < workers.template.spec.terminationGracePeriodSeconds
    tolerated = {one["key"] for one in workers.template.spec.tolerations}
    assert set(workers.template.spec.nodeSelector) < tolerated


def test_the_values_for_helm_make_the_same_cluster():
    values = ChartValues(**yaml.safe_load((KUBERNETES / "ray-cluster-values.yaml").read_text()))
    spec = cluster_specs()["raycluster.yaml"]
    head, (workers,) = spec.headGroupSpec, spec.workerGroupSpecs
    assert values.fullnameOverride == read("raycluster.yaml")["RayCluster"]["metadata"]["name"]
    assert values.head.rayVersion == spec.rayVersion
    assert values.head.autoscalerOptions == spec.autoscalerOptions
    assert values.head.rayStartParams == head.rayStartParams
    assert values.head.resources == head.template.spec.containers[0].resources
    for image, group in ((values.image, head), (values.worker.image, workers)):
        name = f"{image['repository']}:{image['tag']}"
        assert group.template.spec.containers[0].image == name
    for field in ("replicas", "minReplicas", "maxReplicas", "groupName"):
        assert getattr(values.worker, field) == getattr(workers, field)
    pod = workers.template.spec
    for field in ("tolerations", "nodeSelector"):
        assert getattr(values.worker, field) == getattr(pod, field)
    for field in ("lifecycle", "resources", "envFrom"):
        assert getattr(values.worker, field) == getattr(pod.containers[0], field)


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-kueue.yaml", "raycluster.yaml"])
def test_pods_and_config_maps_are_valid_by_the_schema_of_kubernetes(name):
    objects = read(name)
    spec = objects.get("RayJob", objects.get("RayCluster"))["spec"]
    spec = spec.get("rayClusterSpec", spec)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    pods = [{"kind": "Pod", "metadata": {"name": "a"}, **group["template"]} for group in groups]
    maps = [one for kind, one in objects.items() if kind == "ConfigMap"]
    for one in [*pods, *maps]:
        kubernetes_validate.validate({"apiVersion": "v1", **one}, "1.34", strict=True)


@pytest.mark.parametrize(
    ("linter", "name"),
    [
        (("hadolint", "--failure-threshold=warning"), "docker/Dockerfile.cpu"),
        (("hadolint", "--failure-threshold=warning"), "docker/Dockerfile.cuda"),
        (("shellcheck", "--severity=warning"), "slurm/pipemill.sbatch"),
    ],
)
def test_a_linter_finds_nothing(linter, name):
    program = Path(sys.executable).with_name(linter[0])
    done = subprocess.run([program, *linter[1:], EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_an_image_installs_what_the_lock_says_from_files_that_are_there(name):
    text = (EXAMPLES / "docker" / name).read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    assert {step for step, _ in steps} <= {"FROM", "ENV", "RUN", "COPY", "USER", "WORKDIR"}
    assert steps[0][0] == "FROM"
    assert steps[-2] == ["USER", "ray"]
    copied = [word for step, words in steps if step == "COPY" for word in words.split()[:-1]]
    missing = [path for path in copied if not (ROOT / path).exists()]
    assert missing == []
    assert {"pipemill", "jobs", "pipelines", "actors", "configs", "constraints.txt"} <= set(copied)
    installs = [words for step, words in steps if step == "RUN" and "pip install" in words]
    assert len(installs) == 2
    for words in installs:
        assert "--constraint /src/constraints.txt" in words
    for step, words in steps:
        if step == "RUN":
            subprocess.run(["bash", "-n", "-c", words], check=True)


def test_on_slurm_every_node_starts_ray_and_the_first_runs_pipemill(tmp_path):
    script = EXAMPLES / "slurm/pipemill.sbatch"
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    for name, text in {
        "scontrol": 'printf "%s\\n" node-7 node-8',
        "srun": 'printf "%s\\n" "$RAY_AUTH_TOKEN" "$@"',
        "openssl": "echo secret",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "123456", "JOB_NODELIST": "node-[7-8]", "JOB_NUM_NODES": "2",
             "CPUS_PER_TASK": "16", "GPUS_ON_NODE": "1"}  # fmt: skip
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in slurm.items()},
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }

    def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(script), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    done = submit("job.yaml", "--set", "output.path=a b")
    assert done.returncode == 0, done.stderr
    token, *command = done.stdout.splitlines()
    split = command.index("--")
    assert token == "secret"
    assert command[1:split] == [
        "ray", "symmetric-run", "--address", "node-7:23456", "--min-nodes", "2",
        "--num-cpus", "16", "--num-gpus", "1",
    ]  # fmt: skip
    assert command[split + 1 :] == [
        "env", "RAY_ADDRESS=node-7:23456", "pipemill", "run", "job.yaml", "--set",
        "output.path=a b",
    ]  # fmt: skip
    alone = submit()
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "usage: sbatch" in alone.stderr


def test_ray_accepts_the_cluster_of_ones_own_machines():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((EXAMPLES / "on-prem/cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
