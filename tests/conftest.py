"""Models and Ray, each made once for the whole session."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# Nothing is downloaded, and nothing asks the Hub whether it might be.
os.environ["HF_HUB_OFFLINE"] = "1"
# Two processes of tests on two cores: threads of tiny models would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from pipemill.actors.faults.process_end import is_replaceable, set_replaceable

from tests.support import tiny, tiny_audio, tiny_generators, tiny_images, tiny_questions
from tests.support.marks import group_of, marks_of, rank_of
from tests.support.shared import SHARED, name_group

# There the same examples in every run: new ones are looked for where somebody is at hand.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


MODELS = {
    "text-classification": ("ForSequenceClassification", ["a", "b", "c", "d"]),
    "zero-shot-classification": (
        "ForSequenceClassification",
        ["contradiction", "neutral", "entailment"],
    ),
    "feature-extraction": ("Model", None),
    "fill-mask": ("ForMaskedLM", None),
    "token-classification": ("ForTokenClassification", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
}
# Of other kinds than BERT: what writes such a model into a folder.
BUILDERS = {
    **tiny_audio.MODELS,
    **tiny_generators.MODELS,
    **tiny_images.MODELS,
    **tiny_questions.MODELS,
}


def pytest_configure():
    """Give the tests' Rays a separate folder: a Ray that runs on this machine is not joined."""
    # A shell's background commands ignore one, and nohup's the other: so would what tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.pop("RAY_ADDRESS", None)
    # Short: it holds sockets, whose paths may have 107 bytes.
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray", dir="/tmp")


def pytest_unconfigure():
    SHARED.close()
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their argument: made ones may hold the time, and differ between processes."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Give each test its marks, before `-m` and xdist look at them; long ones come first."""
    folder = Path(__file__).parent
    ranks = {}
    for item in items:
        path = item.path.relative_to(folder).as_posix()
        marks = marks_of(path, item.originalname, item.fixturenames)
        for mark in marks:
            item.add_marker(mark)
        group = group_of(path, marks, item.fixturenames)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
        ranks[item] = rank_of(marks, group)
    items.sort(key=ranks.__getitem__)


def pytest_runtest_setup(item):
    """Skip a test whose libraries are missing, unless `-m extras` asks for these tests alone."""
    wanted = {name for mark in item.iter_markers("extras") for name in mark.args}
    missing = sorted(name for name in wanted if not find_spec(name))
    if missing and item.config.option.markexpr != "extras":
        pytest.skip(f"without {' and '.join(missing)}")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Stop what a group of tests has shared."""
    _freeze_imports()
    if name_group(item) != name_group(nextitem):
        SHARED.close()


def pytest_collection_finish():
    _freeze_imports()


_frozen = 0


def _freeze_imports() -> None:
    """Let garbage be looked for in what tests make, not in the millions of objects they import."""
    global _frozen
    if len(sys.modules) - _frozen > 50:
        gc.collect()
        gc.freeze()
        _frozen = len(sys.modules)


class Models:
    """Folders of tiny models, by task; built when first asked for.

    Where a task has several, the others are named by the task and what they are.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, task: str) -> str:
        folder = self.root / task
        if task in BUILDERS and not folder.exists():
            BUILDERS[task](folder)
        elif not folder.exists():
            tiny.save(folder, *MODELS[task], max_length=128)
        return str(folder)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", autouse=True)
def no_flush():
    """Let files reach the disk when they will: no test cuts the power, and waiting takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def not_replaceable():
    """Let a worker that a test had in this process leave none that may end itself."""
    yield
    if is_replaceable():
        set_replaceable(False)


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray with two CPUs, which all tests that need one share."""
    import logging

    import ray
    import ray.data

    # Ray would cut a few rows into 200 blocks, each of which every operator takes a while for.
    ray.data.DataContext.get_current().read_op_min_num_blocks = 4
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    SHARED.callback(ray.shutdown)
