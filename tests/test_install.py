"""What pyproject.toml declares, against what the code imports and tells users to install."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from pipemill.pipelines.loading.extras import EXTRAS, advise_install, find_package, is_installed
from pipemill.pipelines.media import NEEDED
from pipemill.pipelines.registry import find_task, task_names

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = packages_distributions()
FOLDERS = ("pipemill", "jobs", "pipelines", "actors")
# Those that nobody needs who runs jobs.
DEVELOPERS_EXTRAS = {"benchmark", "dev", "docs"}
# What conda-forge calls otherwise.
CONDA_NAMES = {"ray[data]": "ray-data", "torch": "pytorch"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    """The names of requirements, with those of the extras of pipemill that they ask for."""
    names = set()
    for requirement in requirements:
        name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?.*", requirement).groups()
        if name == "pipemill":
            for extra in extras.split(","):
                names |= declared(PROJECT["optional-dependencies"][extra])
        else:
            names.add(normal(name))
    return names


def imported(source):
    """The top-level modules that a file imports anywhere in it, lazily too, but not for types."""
    names, tree = set(), ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"pipemill"}


def packages(module):
    return {normal(name) for name in [*INSTALLED.get(module, []), find_package(module)]}


def test_what_is_imported_is_declared():
    brought = declared(PROJECT["dependencies"])
    libraries = "media peft plot vision vllm delta iceberg lance onnx openvino"
    for extra in libraries.split():
        brought |= declared(PROJECT["optional-dependencies"][extra])
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 150
    missing = {
        f"{module} ({file.relative_to(ROOT)})"
        for file in files
        for module in imported(file.read_text())
        if not packages(module) & brought
    }
    assert not missing


def test_the_check_of_imports_sees_lazy_ones():
    source = "def f():\n    import torch.nn\n    from PIL import Image\n    from . import here\n"
    source += "if TYPE_CHECKING:\n    import polars\n"
    assert imported(source) == {"torch", "PIL"}


def test_the_readme_has_every_extra_and_what_it_installs():
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("| extra | installs |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    shown = {name: cells[1] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}
    extras = PROJECT["optional-dependencies"]
    assert set(shown) == set(extras) - DEVELOPERS_EXTRAS
    for extra in set(shown) - {"all", "cluster", "plot", "delta", "iceberg", "lance"}:
        named = {normal(name).replace("pyav", "av") for name in shown[extra].split(", ")}
        assert named == declared(extras[extra]) - {"sudachidict-core"}, extra


def test_the_classifiers_are_the_pythons_that_it_needs():
    listed = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert listed == sorted(listed, key=int)
    assert PROJECT["requires-python"] == f">=3.{listed[0]}"
    assert not any("License ::" in one for one in PROJECT["classifiers"])  # by `license`, as SPDX


def test_the_recipe_for_conda_needs_what_the_wheel_needs():
    recipe = yaml.safe_load((ROOT / "docs/examples/conda-forge/recipe.yaml").read_text())
    needed = []
    for requirement in PROJECT["dependencies"]:
        name, version = re.fullmatch(r"([\w\[\]-]+)(.*)", requirement).groups()
        needed.append(f"{CONDA_NAMES.get(name, name)} {version}".strip())
    assert recipe["requirements"]["run"] == ["python >=${{ python_min }}", *needed]
    context = recipe["context"]
    assert context["version"] == PROJECT["version"]
    assert PROJECT["requires-python"] == f">={context['python_min']}"
    scripts = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["documentation"] == PROJECT["urls"]["Documentation"]


def test_a_release_is_tested_and_needs_no_secret():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {}
    assert "secrets." not in text
    assert ".ci/run" in [step.get("run") for step in jobs["build"]["steps"]]
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    version = PROJECT["version"]
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f'__version__ = "{version}"' in (ROOT / "pipemill/__init__.py").read_text()


def test_only_extras_bring_what_an_extra_names():
    brought = declared(PROJECT["dependencies"])
    for extra, modules in EXTRAS.items():
        names = declared(PROJECT["optional-dependencies"][extra])
        assert {normal(find_package(module)) for module in modules} <= names
        # Those of transformers alone may be there for a dependency's sake.
        assert not names & brought - {"protobuf"}
    # vLLM pins one version of torch, which nobody should get unasked.
    assert declared(PROJECT["optional-dependencies"]["all"]) == set().union(
        *(declared(PROJECT["optional-dependencies"][extra]) for extra in EXTRAS.keys() - {"vllm"})
    )


def test_developers_get_no_torchvision():
    """It would bring another torch than the one that the tests run with."""
    assert not declared(PROJECT["optional-dependencies"]["dev"]) & {"torchvision", "torchaudio"}


def test_every_library_that_a_task_names_is_in_an_extra():
    named = {m for modules in NEEDED.values() for m in modules}
    for task in task_names():
        named |= set(getattr(find_task(task), "libraries", ()))
    assert "torchvision.ops.boxes" in named
    for module in named:
        assert advise_install([module]).startswith("pip install 'pipemill["), module


def test_how_to_install_joins_extras_and_names_what_has_none():
    assert advise_install(["PIL"]) == "pip install 'pipemill[media]'"
    assert advise_install(["timm", "PIL", "av"]) == "pip install 'pipemill[media,vision]'"
    assert advise_install(["natten", "g2p_en", "bs4"]) == (
        "pip install 'pipemill[speech]' beautifulsoup4 natten"
    )


def test_what_is_installed_is_known_without_importing_it():
    assert is_installed("json")
    assert is_installed("google.protobuf")
    assert not is_installed("no_such_module")
    assert not is_installed("no_such_module.inside")
    assert "antigravity" not in sys.modules
    assert is_installed("antigravity")  # opens a browser when it is imported
    assert "antigravity" not in sys.modules
