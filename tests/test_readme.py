"""What the README tells a user to type, run in its order on the demo's input, made smaller."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from demo import newsgroups

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# One process runs all tests that share a Ray.
pytestmark = pytest.mark.xdist_group("ray")


def blocks(*languages: str) -> list[tuple[str, str]]:
    found = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def test_every_block_runs(tmp_path, monkeypatch, ray_session):
    import ray

    monkeypatch.setattr(newsgroups, "POSTS", 40)
    monkeypatch.setattr(newsgroups, "LONG_POSTS", 2)
    monkeypatch.setattr(newsgroups, "SHARDS", 1)
    newsgroups.prepare(tmp_path / ".demo")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # The Ray that these tests share: starting one per block would take minutes.
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    scripts = blocks("bash", "python")
    assert len(scripts) == 4
    for language, text in scripts:
        command = ["bash", "-euc"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, text], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, text + done.stderr
    outputs = {
        name: ds.dataset(tmp_path / ".demo" / name).to_table().sort_by("id")
        for name in ("by-command", "by-config", "by-python")
    }
    assert outputs["by-python"].num_rows == 40
    assert outputs["by-command"].equals(outputs["by-python"])
    assert outputs["by-config"].equals(outputs["by-python"])


def test_the_configuration_shown_is_the_default():
    import yaml
    from pipemill.jobs.config.job import Job

    ((_, text),) = blocks("yaml")
    shown = yaml.safe_load(text)
    parsed = Job.model_validate(shown)
    job = parsed.model_dump()
    job["model"]["engine"] = parsed.model.engine  # which older versions do not know: left out
    bare = {key: shown[key]["path"] for key in ("model", "input", "output")}
    assert Job.model_validate({"task": shown["task"], **bare}) == parsed
    assert shown == job, "every key is shown"


def test_the_commands_of_the_first_lines_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README + (ROOT / ".ci/run").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_demo_reads_posts_and_no_header():
    posts = newsgroups.posts()
    assert len(posts) == newsgroups.POSTS
    assert len({post["group"] for post in posts}) == 20
    assert (posts[0]["id"], posts[0]["group"]) == (0, "alt.atheism")
    assert posts[0]["text"].startswith("re about the bible quiz answers")
