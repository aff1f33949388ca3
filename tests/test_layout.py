"""What the folders promise: imports one way, public names, the wheel, the cluster's YAML."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from pipemill.jobs.config.load import build_job

import pipemill

ROOT = Path(__file__).parent.parent
FOLDERS = ("actors", "pipelines", "jobs")  # each may import those before it


def _imports(path: Path) -> set[str]:
    """The folders of pipemill that a file imports from."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            names = [
                ".".join(
                    ["pipemill", *base, *filter(None, [node.module])]
                    if base
                    else [node.module or ""]
                )
            ]
        # By its bare name a folder would be a second copy of itself.
        assert not {name.split(".")[0] for name in names} & set(FOLDERS), f"{path}: {names}"
        found |= {n.split(".")[1] for n in names if n.startswith("pipemill.")}
    return found & set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder):
    allowed = set(FOLDERS[: FOLDERS.index(folder) + 1])
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 3
    for file in files:
        assert _imports(file) <= allowed, file


def test_the_check_of_imports_can_fail():
    assert _imports(ROOT / "jobs/execution/placement.py") == {"actors", "pipelines", "jobs"}


def test_public_names_are_there_and_import_nothing_heavy():
    assert pipemill.__all__ == sorted(pipemill.__all__)
    for name in pipemill.__all__:
        assert getattr(pipemill, name).__name__ == name
    code = (
        "import sys, pipemill, pipemill.jobs.cli.app, pipemill.jobs.prepare\n"
        "from pipemill.pipelines.registry import find_task, task_names\n"
        "[find_task(name) for name in task_names()]\n"
        "print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("config", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_config_is_a_job(config):
    job = build_job(config, [], {}, {})
    from pipemill.pipelines.registry import find_task

    assert set(job.parameters) <= set(find_task(job.task).parameters)


def test_the_wheel_holds_every_file(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    folders = {"pipemill": "", "jobs": "pipemill/", "pipelines": "pipemill/", "actors": "pipemill/",
               "configs": "pipemill/"}  # fmt: skip
    tree = {
        prefix + file.relative_to(ROOT).as_posix()
        for folder, prefix in folders.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert names == tree


def test_ray_accepts_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu_worker"]["resources"]["GPU"] == 1
    with pytest.raises(Exception, match="unknown|Additional"):
        validate_config({**prepared, "nonsense": 1})
