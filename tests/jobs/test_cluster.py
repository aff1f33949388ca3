"""Which Ray a run joins, and with how many actors."""

import socket

import pytest
from pipemill.jobs.cluster import _running_here, _start, joins_cluster, pool_size
from pipemill.jobs.errors import ConfigError, RunError
from pipemill.jobs.job import ActorsSection


def test_the_address_of_a_dead_head_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr("ray._private.utils.get_ray_address_file", lambda _: str(tmp_path / "at"))
    assert not _running_here()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "at").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert _running_here()
    assert not _running_here()


def test_a_ray_that_was_started_here_is_joined(monkeypatch, tmp_path):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not joins_cluster()
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray/ray_current_cluster").write_text(address)
        assert joins_cluster()
    assert not joins_cluster()  # its head was killed


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
    monkeypatch.setattr("pipemill.jobs.cluster._autoscales", lambda: grows)
    assert pool_size(ActorsSection(**given), "fused", 50) == expected


def test_a_ray_that_does_not_answer_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            ConfigError, match=rf"no Ray answers at {address} \(RAY_ADDRESS:.*unset"
        ):
            _start()


def test_a_ray_that_does_not_start_is_a_message(monkeypatch):
    """As where something kills its raylet meanwhile."""

    def init(*args, **settings):
        raise Exception("The current node timed out during startup.\nMore of it")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(RunError, match=r"could not be started \(The current .* startup\.\); run"):
        _start()
