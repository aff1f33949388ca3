"""Folders and files that one may not read or write: said before anything starts, by name."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support import light

# The superuser may do everything, but for this.
AS_ANYONE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
pytestmark = pytest.mark.skipif(
    os.name != "posix" or (os.geteuid() == 0 and shutil.which("setpriv") is None),
    reason="what is not permitted can't be tried here",
)


def run(wanted, folder):
    under = AS_ANYONE if os.geteuid() == 0 else []
    process = light.start("run", wanted, folder, under=under)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert out == ""
    return process.returncode, err


@pytest.fixture
def wanted(tmp_path):
    return light.job(tmp_path, ["a"] * 30)


@pytest.fixture
def forbid():
    changed = []

    def change(path, mode):
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield change
    for path, mode in changed:
        path.chmod(mode)


def test_an_output_that_can_not_be_written(wanted, tmp_path, forbid):
    (tmp_path / "mine").mkdir()
    forbid(tmp_path / "mine", 0o555)
    wanted["output"]["path"] = str(tmp_path / "mine/out")
    status, said = run(wanted, tmp_path)
    assert status == 2
    assert f"can't write to the output {tmp_path}/mine/out" in said
    assert "Permission denied" in said


def test_a_file_in_a_folder_that_can_not_be_entered(wanted, tmp_path, forbid):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "in.parquet").rename(tmp_path / "theirs/in.parquet")
    wanted["input"] = str(tmp_path / "theirs/in.parquet")
    forbid(tmp_path / "theirs", 0)
    status, said = run(wanted, tmp_path)
    assert status == 2
    assert f"can't list the input {tmp_path}/theirs/in.parquet: PermissionError" in said


def test_an_input_that_can_not_be_read(wanted, tmp_path, forbid):
    forbid(tmp_path / "in.parquet", 0)
    status, said = run(wanted, tmp_path)
    assert status == 2
    assert f"{tmp_path}/in.parquet" in said
    assert "Permission denied" in said


def test_a_folder_that_can_not_be_listed(wanted, tmp_path, forbid):
    (tmp_path / "in").mkdir()
    (tmp_path / "in.parquet").rename(tmp_path / "in/a.parquet")
    wanted["input"] = str(tmp_path / "in")
    forbid(tmp_path / "in", 0)
    status, said = run(wanted, tmp_path)
    assert status == 2
    assert f"{tmp_path}/in" in said
    assert "Permission denied" in said


def test_a_model_that_can_not_be_read(wanted, tmp_path, forbid):
    forbid(tmp_path / "model", 0)
    status, said = run(wanted, tmp_path)
    assert status == 2
    assert f"{tmp_path}/model" in said
    assert "ermission" in said
