"""Which Ray a run joins, and with how many actors."""

import socket

import pytest
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution.pool_size import choose_pool_size
from pipemill.jobs.execution.ray_cluster import (
    _find_address_file,
    _find_ray_here,
    _start,
    joins_other_machines,
)
from ray._private.utils import get_ray_address_file

from pipemill.errors import ConfigError, RunError


def test_the_address_of_a_dead_head_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert get_ray_address_file(None) == str(tmp_path / "ray/ray_current_cluster")
    assert not _find_ray_here()
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray/ray_current_cluster").write_text(address)
        assert _find_ray_here()
    assert not _find_ray_here()


@pytest.mark.parametrize("names", [(), ("TMPDIR",), ("TMPDIR", "RAY_TMPDIR")])
def test_the_address_is_where_ray_looks_for_it(monkeypatch, tmp_path, names):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / name))
    assert str(_find_address_file()) == get_ray_address_file(None)


def test_a_ray_that_was_started_here_is_joined(monkeypatch, tmp_path):
    monkeypatch.setattr("pipemill.jobs.execution.ray_cluster._is_connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not joins_other_machines("auto")
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray/ray_current_cluster").write_text(address)
        assert joins_other_machines("auto")
    assert not joins_other_machines("auto")  # its head was killed


@pytest.mark.parametrize(
    ("grows", "given", "expected"),
    [
        (False, {}, (6, 6)),
        (False, {"min": 8, "max": 9}, (6, 9)),
        (False, {"max": 2}, (2, 2)),
        (True, {"max": 40}, (6, 40)),
        (True, {"min": 8, "max": 40}, (8, 40)),
        (True, {"min": 60, "max": 90}, (50, 50)),  # no more than there are splits
    ],
)
def test_where_a_cluster_grows_so_many_actors_are_asked_for_at_once(
    monkeypatch, grows, given, expected
):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("pipemill.jobs.execution.pool_size.autoscales", lambda: grows)
    assert choose_pool_size(ActorsSection(num_gpus=0, **given), "fused", 50) == expected


def test_a_ray_that_does_not_answer_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            ConfigError, match=rf"no Ray answers at {address} \(RAY_ADDRESS:.*unset"
        ):
            _start("auto")


def test_a_ray_that_does_not_start_is_a_message(monkeypatch):
    """As where something kills its raylet meanwhile, or on a machine that is too busy."""
    tries = []

    def init(*args, **settings):
        tries.append(args)
        raise Exception("The current node timed out during startup.\nMore of it")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)  # it would end the Ray of another test
    with pytest.raises(RunError, match=r"could not be started \(The current .* startup\.\); run"):
        _start("local")
    assert len(tries) == 2


def test_a_ray_that_starts_the_second_time_is_used(monkeypatch):
    tries = []

    def init(*args, **settings):
        tries.append(args)
        if len(tries) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    _start("local")
    assert len(tries) == 2


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            ConnectionError("Failed to connect to Ray cluster at 127.0.0.1"),
            ConfigError,
            r"the Ray at HERE could not be joined \(Failed .*\): .* RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH .*actors.cluster to local",
        ),
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n"
                "    Python: 3.11.7\nThis process on node was started with:\n    Ray: 2.60.0\n"
                "    Python: 3.11.7\n"
            ),
            ConfigError,
            r"Ray at HERE could not be joined \(Version mismatch: .* with: Ray: 2.50.0 Python: "
            r"3.11.7 This .* Ray: 2.60.0 Python: 3.11.7\): .*actors.cluster to local",
        ),
        (ValueError("no idea\nof it"), RunError, r"at HERE could not be joined \(no idea\); run"),
    ],
)
def test_a_ray_that_is_not_joined_is_named(monkeypatch, error, expected, message):
    def init(*args, **settings):
        raise error

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", here)
        with pytest.raises(expected, match=message.replace("HERE", here)) as raised:
            _start("auto")
    assert type(raised.value) is expected
