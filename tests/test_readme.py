"""README and the pages of docs/: every block of code runs, every link and path exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
import yaml
from pipemill.actors.sources import registry as sources
from pipemill.jobs.config.job import Job
from pipemill.pipelines.engines import registry as engines
from pipemill.pipelines.registry import ENTRY_POINTS, find_task, task_names
from safetensors.numpy import load_file, save_file

import pipemill
from demo import newsgroups
from tests.support.task_table import COMMAND, insert_table

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
}
RUN = ("bash", "python")
BARE = {"task": "feature-extraction", "model": "m", "input": "in", "output": "out"}


@dataclass(frozen=True)
class Block:
    """A fenced block; `not_run` is the reason in the comment above it."""

    not_run: str | None
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    fence = r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$"
    found = re.findall(fence, PAGES[page], re.MULTILINE | re.DOTALL)
    return [Block(reason or None, language, text) for reason, language, text in found]


# Importing torch and transformers for each block would take most of the time.
IN_ONE_PYTHON = """
import json, sys
for text in json.load(sys.stdin):
    print(text, file=sys.stderr)
    exec(text, {"__name__": "__main__"})
"""
# So would a worker process for each run; those of README and of bash have one.
WITHOUT_WORKERS = """
from pipemill.jobs.execution import placement
placement.SINGLE = "local"
"""


def blocks_to_run(page: str, language: str) -> list[str]:
    return [b.text for b in blocks(page) if b.language == language and b.not_run is None]


def run_bash(page: str, folder: Path, environment: dict[str, str]) -> None:
    for text in blocks_to_run(page, "bash"):
        run(["bash", "-euc", text], folder, environment)


def run_python(
    pages: list[str], folder: Path, environment: dict[str, str], before: str = ""
) -> None:
    """Run the blocks of pages in one process; they share no names. before: code to begin with."""
    texts = [text for page in pages for text in blocks_to_run(page, "python")]
    run([sys.executable, "-c", before + IN_ONE_PYTHON], folder, environment, json.dumps(texts))


def run(command: list[str], folder: Path, environment: dict[str, str], given: str = "") -> None:
    done = subprocess.run(
        command, input=given, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, command[-1] + done.stderr


@pytest.fixture(scope="module")
def environment():
    """Of a user with a small input, and with no Ray that runs already."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: it holds sockets
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    yield {**inherited, "PATH": path, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, environment):
    """A folder in which the README was followed, on the demo's input and model, made smaller."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newsgroups, "POSTS", 40)
        patch.setattr(newsgroups, "LONG_POSTS", 2)
        patch.setattr(newsgroups, "SHARDS", 1)
        newsgroups.prepare(folder / ".demo")
    keep_one_layer(folder / ".demo/model")
    shutil.copytree(ROOT / "configs", folder / "configs")
    run_bash("README.md", folder, environment)
    run_python(["README.md"], folder, environment)
    return folder


def keep_one_layer(link: Path) -> None:
    """Put a copy of the model in the place of the link: its other layers take most of the time."""
    model, weights = link.resolve(), "model.safetensors"
    link.unlink()
    shutil.copytree(model, link, ignore=shutil.ignore_patterns(weights))
    config = json.loads((model / "config.json").read_text())
    (link / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    tensors = load_file(model / weights)
    kept = {name: one for name, one in tensors.items() if not re.search(r"layer\.[1-9]", name)}
    save_file(kept, link / weights, {"format": "pt"})


def test_the_three_ways_of_the_readme_give_the_same(folder):
    outputs = [
        ds.dataset(folder / ".demo" / name).to_table().sort_by("id")
        for name in ("by-command", "by-config", "by-python")
    ]
    assert outputs[0].num_rows == 40
    vectors = [np.array(output["embedding"].to_pylist()) for output in outputs]
    for output, vector in zip(outputs[1:], vectors[1:], strict=True):
        assert output.drop(["embedding"]).equals(outputs[0].drop(["embedding"]))
        # Each run measures its own budget, so a row may share its micro-batch with others.
        np.testing.assert_allclose(vector, vectors[0], atol=1e-5)


DOCS = [page for page in PAGES if page != "README.md"]


@pytest.mark.parametrize("page", [page for page in DOCS if blocks_to_run(page, "bash")])
def test_every_block_of_bash_runs(page, folder, environment):
    run_bash(page, folder, environment)


def test_every_block_of_python_runs(folder, environment):
    def imports_ray(page: str) -> bool:
        return any("import ray\n" in text for text in blocks_to_run(page, "python"))

    # Last, since later blocks would use the Ray that it starts.
    run_python(sorted(DOCS, key=imports_ray), folder, environment, WITHOUT_WORKERS)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_known_kind(page):
    found = blocks(page)
    assert PAGES[page].count("\n```") == 2 * len(found)
    for block in found:
        assert block.language in {*RUN, "yaml", "toml", "text"}
        if block.language == "text":  # outputs and drawings: nothing to type
            assert not re.search(r"^\s*(pipemill|python|pip|make|ray) ", block.text, re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(block.text, id=f"{page}-{number}")
        for page in PAGES
        for number, block in enumerate(b for b in blocks(page) if b.language == "yaml")
    ],
)
def test_every_piece_of_a_config_is_valid(text):
    given = yaml.safe_load(text)
    bare = {key: BARE[key] for key in ("input", "output")} if "tasks" in given else BARE
    job = Job.model_validate({**bare, **given})
    if job.pipeline_class is None:
        assert set(job.parameters) <= set(find_task(job.task).parameters)


def test_the_entry_points_are_those_that_are_read():
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "toml"]
    shown = [name for text in texts for name in tomllib.loads(text)["project"]["entry-points"]]
    assert sorted(shown) == sorted([ENTRY_POINTS, engines.ENTRY_POINTS, sources.ENTRY_POINTS])


def test_the_configuration_shown_is_the_default():
    (text,) = [b.text for b in blocks("docs/configuration.md") if b.language == "yaml"]
    shown = yaml.safe_load(text)
    parsed = Job.model_validate(shown)
    job = parsed.model_dump()
    for key in ("engine", "adapter"):  # which older versions do not know: left out
        job["model"][key] = getattr(parsed.model, key)
    bare = {key: shown[key]["path"] for key in ("model", "input", "output")}
    assert Job.model_validate({"task": shown["task"], **bare}) == parsed
    assert shown == job, "every key is shown"


def test_the_table_of_tasks_is_current():
    page = PAGES["docs/tasks.md"]
    assert insert_table(page) == page, f"run {COMMAND}"


def test_the_readme_is_short_and_names_every_task():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 120]
    table = PAGES["README.md"].partition("\n## Tasks\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    assert named == set(task_names()), "the table of tasks in the README"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_lines_fit_a_terminal(page):
    """Except those of tables, which can't be broken."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


def test_every_public_name_is_in_the_python_api():
    page = PAGES["docs/python-api.md"]
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`pipemill\.(\w+)", text)) == set(pipemill.__all__)
    examples = "\n".join(block.text for block in blocks("docs/python-api.md"))
    verbs = [name for name in pipemill.__all__ if name.islower() and name != "retry"]
    assert [name for name in verbs if f"pipemill.{name}(" not in examples] == []


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page):
    folders = "pipemill|jobs|pipelines|actors|tests|configs|demo|notebooks|benchmarks|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", PAGES[page]):
        if "NAME" not in path and not path.startswith("benchmarks/results"):
            assert (ROOT / path).exists(), path


def test_every_page_is_reached_from_the_readme():
    for page in PAGES:
        assert page == "README.md" or f"]({page}" in PAGES["README.md"], page


def test_the_map_has_every_folder():
    table = PAGES["CONTRIBUTING.md"].partition("\n## Map\n")[2].partition("\n## ")[0]
    for name in ("jobs", "pipelines", "actors"):
        folders = [path.parent for path in (ROOT / name).glob("*/__init__.py")]
        for folder in [ROOT / name, *folders]:
            assert f"`{folder.relative_to(ROOT).as_posix()}/`" in table, folder


def test_every_target_of_make_is_there():
    makefile = (ROOT / "Makefile").read_text()
    texts = "\n".join([*PAGES.values(), (ROOT / ".ci/run").read_text()])
    targets = set(re.findall(r"(?:^|`)make ([\w-]+)", texts, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_demo_reads_posts_and_no_header():
    posts = newsgroups.posts()
    assert len(posts) == newsgroups.POSTS
    assert len({post["group"] for post in posts}) == 20
    assert (posts[0]["id"], posts[0]["group"]) == (0, "alt.atheism")
    assert posts[0]["text"].startswith("re about the bible quiz answers")
