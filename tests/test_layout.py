"""What the folders promise: imports one way, public names, the wheel, the cluster's YAML."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from pipemill.jobs.cli.app import main

import pipemill
from tests.support.import_graph import (
    FOLDERS,
    find_circles,
    find_longest_chain,
    find_upward_imports,
    read_imports,
)
from tests.support.marks import PATHS, group_of, marks_of, rank_of

ROOT = Path(__file__).parent.parent
MOST_FILES = 16
# What the tests read beside the package and themselves.
READ_BY_TESTS = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", ".ci/run", ".github",
    "cluster.yaml", "mkdocs.yml", "constraints.txt", "docs/tasks.md", "docs/examples", "demo",
    "notebooks", "benchmarks", "tests",
)  # fmt: skip
# The aim is 9 levels. These are today's; they may become fewer, never more.
MOST_LEVELS = {"actors": 7, "pipelines": 9, "jobs": 9}


@pytest.fixture(scope="module")
def graph():
    return read_imports(ROOT)


def test_imports_go_one_way(graph):
    assert min(sum(name.startswith(f"{folder}.") for name in graph) for folder in FOLDERS) > 30
    assert find_upward_imports(graph) == []


def test_imports_go_in_no_circle(graph):
    assert find_circles(graph) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_few_import_levels(graph, folder):
    chain = find_longest_chain(graph, folder)
    assert len(chain) <= MOST_LEVELS[folder], " <- ".join(chain)


def _write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_check_of_imports_can_fail(tmp_path):
    _write(tmp_path, "pipemill/errors.py", "")
    _write(tmp_path, "actors/a.py", "def f():\n    from pipemill.jobs.deep import verb")
    _write(tmp_path, "actors/b.py", "from pipemill import __version__, errors\nfrom . import a")
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipemill.jobs import top"
    _write(tmp_path, "pipelines/p.py", f"{types}\nelse:\n    import pipemill.actors.b")
    _write(tmp_path, "jobs/__init__.py", "")
    _write(tmp_path, "jobs/top.py", "from .deep.verb import run")
    _write(tmp_path, "jobs/deep/__init__.py", "from pipemill.pipelines.p import anything")
    _write(tmp_path, "jobs/deep/verb.py", "from .. import top\nfrom . import anything")
    graph = read_imports(tmp_path)
    assert graph == {
        "pipemill.errors": set(),
        "actors.a": {"jobs.deep.verb"},
        "actors.b": {"actors.a", "pipemill.errors"},
        "pipelines.p": {"actors.b"},
        "jobs": set(),
        "jobs.top": {"jobs.deep.verb"},
        "jobs.deep": {"pipelines.p"},
        "jobs.deep.verb": {"jobs.top", "jobs.deep"},
    }
    assert find_upward_imports(graph) == [("actors.a", "jobs.deep.verb")]
    (circle,) = find_circles(graph)  # by way of the one against the rule
    assert circle == set(graph) - {"pipemill.errors", "jobs"}
    assert find_circles({"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": []}) == [{"a", "b"}]
    assert find_longest_chain(graph, "actors") == ["actors.b", "actors.a"]
    steps = {"jobs.a": ["jobs.c", "jobs.b"], "jobs.b": ["jobs.c"], "jobs.c": ["actors.b"]}
    assert find_longest_chain(steps, "jobs") == ["jobs.a", "jobs.b", "jobs.c"]
    _write(tmp_path, "jobs/bare.py", "import actors.a")
    with pytest.raises(AssertionError, match="import it as"):
        read_imports(tmp_path)


def test_a_folder_has_few_files():
    folders = ("pipemill", *FOLDERS, "benchmarks", "demo")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    homes = [file.parent.relative_to(ROOT).as_posix() for file in files]
    counts = {home: homes.count(home) for home in set(homes)}
    assert {"jobs/planning", "pipelines/tasks", "actors/storage"} <= set(counts)
    assert {home: count for home, count in counts.items() if count > MOST_FILES} == {}


def test_the_map_has_every_folder():
    files = [file for folder in ("pipemill", *FOLDERS) for file in (ROOT / folder).rglob("*.py")]
    homes = {file.parent.relative_to(ROOT).as_posix() for file in files}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert sorted(home for home in homes if f"`{home}/`" not in text) == []


def test_a_verb_is_a_file(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["--help"]) == 0
    # Each verb with its line of help.
    verbs = re.findall(r"^[ │]{1,6}([a-z]+) {2,}\S", capsys.readouterr().out, re.MULTILINE)
    files = {file.stem for file in (ROOT / "jobs").glob("*.py")} - {"__init__", "prepare"}
    files -= {"apply"}  # for datasets of Ray, which only Python has
    assert len(verbs) == len(set(verbs)) > 7
    assert set(verbs) == files


def test_marks_are_of_tests_that_are_there():
    for path in {path for paths in PATHS.values() for path in paths}:
        file, _, name = path.partition("::")
        if file.endswith(".py"):
            assert f"def {name or 'test_'}" in (ROOT / "tests" / file).read_text(), path
        else:
            assert list((ROOT / "tests" / file).glob("test_*.py")), path
    assert marks_of("jobs/execution/test_kill.py", "test_any", ["object_store", "models"]) == {
        "ray", "kill", "s3",
    }  # fmt: skip
    assert marks_of("pipelines/restored/test_generation.py", "test_any", []) == {"slow"}
    assert marks_of("jobs/test_run.py", "test_any", ["models"]) == set()


def test_tests_of_a_server_or_a_file_run_in_one_process(request):
    if request.config.option.__dict__.get("loadgroup"):  # in a process of pytest-xdist
        assert request.node.nodeid.endswith("@test_layout.py"), "make install: another pytest"
    path = "jobs/execution/test_kill.py"
    assert group_of(path, {"ray"}, ["ray_session", "models"]) == "ray"
    assert group_of(path, {"kill"}, ["models"]) is None
    assert group_of("jobs/test_run.py", set(), ["models"]) == "jobs/test_run.py"
    order = [
        ({"kill"}, "ray"),
        ({"s3"}, "servers"),
        ({"kill"}, None),
        ({"slow"}, "a"),
        (set(), "a"),
    ]
    ranks = [rank_of(*one) for one in order]
    assert ranks == sorted(set(ranks))


def test_public_names_are_there_and_import_nothing_heavy():
    assert pipemill.__all__ == sorted(pipemill.__all__)
    for name in pipemill.__all__:
        assert getattr(pipemill, name).__name__ == name
    assert [name for name in dir(pipemill) if not name.startswith("__")] == pipemill.__all__
    code = (
        "import sys, pipemill, pipemill.jobs.cli.app, pipemill.jobs.prepare\n"
        "from pipemill.pipelines.registry import find_task, task_names\n"
        "[find_task(name) for name in task_names()]\n"
        "[getattr(pipemill, name) for name in pipemill.__all__]\n"
        "print(sorted({'torch', 'transformers', 'ray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _build(root: Path, target: str, folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def test_the_wheel_holds_every_file_and_is_that_of_the_sdist(tmp_path):
    wheel = _build(ROOT, "wheel", tmp_path / "wheel")
    sdist = _build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert _build(unpacked, "wheel", tmp_path / "again").read_bytes() == wheel.read_bytes()
    assert [path for path in READ_BY_TESTS if not (unpacked / path).exists()] == []
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


def test_public_docstrings_say_what_goes_in_and_out():
    for name in pipemill.__all__:
        public = getattr(pipemill, name)
        doc = inspect.getdoc(public)
        if inspect.isfunction(public):
            assert "\nReturns:\n" in doc, name
            says_arguments = "\nArgs:\n" in doc or "The arguments are those of `run`" in doc
            assert says_arguments or not inspect.signature(public).parameters, name
        elif dataclasses.is_dataclass(public):
            assert "\nAttributes:\n" in doc, name
