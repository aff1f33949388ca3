"""Which running Ray is found, and what is said of one that does not answer."""

import socket

import pytest
from pipemill.jobs.execution import ray_address
from pipemill.jobs.execution.ray_address import (
    _find_address_file,
    check_configured_address,
    find_ray,
    find_ray_here,
    joins_other_machines,
)
from ray._private.utils import get_ray_address_file

from pipemill.errors import ConfigError
from tests.support.listening import GRPC, HTTP, listen


@pytest.fixture(autouse=True)
def leave_address(monkeypatch, tmp_path):
    """Return what leaves an address where `ray start` leaves it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert get_ray_address_file(None) == str(tmp_path / "ray/ray_current_cluster")
    (tmp_path / "ray").mkdir()
    return (tmp_path / "ray/ray_current_cluster").write_text


def test_the_address_of_a_dead_head_is_not_waited_for(leave_address):
    assert not find_ray_here()
    with listen(GRPC) as address:
        leave_address(address)
        assert find_ray_here() == address
        assert find_ray("local") == ""
    assert not find_ray_here()


def test_another_server_that_took_a_dead_heads_port_is_not_joined(leave_address, monkeypatch):
    """`ray.init` waits for it, and nothing ends that."""
    monkeypatch.setattr(ray_address, "_HERE_S", 0.3)
    for answer in (HTTP, b"-ERR unknown command\r\n", b"x", b""):
        with listen(answer) as address:
            leave_address(address)
            assert not find_ray_here()


@pytest.mark.parametrize("names", [(), ("TMPDIR",), ("TMPDIR", "RAY_TMPDIR")])
def test_the_address_is_where_ray_looks_for_it(monkeypatch, tmp_path, names):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / name))
    assert str(_find_address_file()) == get_ray_address_file(None)


def test_a_ray_that_was_started_here_is_joined(monkeypatch, leave_address):
    monkeypatch.setattr("pipemill.jobs.execution.ray_address.find_connected_ray", lambda: None)
    assert not joins_other_machines("auto")
    with listen(GRPC) as address:
        leave_address(address)
        assert joins_other_machines("auto")
    assert not joins_other_machines("auto")  # its head was killed


def test_a_configured_ray_that_does_not_answer_is_named(leave_address, monkeypatch):
    monkeypatch.setattr(ray_address, "_CONFIGURED_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    unset = "start a cluster there, or unset RAY_ADDRESS"
    for address in (closed, f"ray://{closed}"):
        with pytest.raises(ConfigError, match=rf"no Ray answers at {address} \(RAY_.*{unset}"):
            check_configured_address(address)
    leave_address(closed)
    with pytest.raises(ConfigError, match=rf"at {closed} \(RAY_ADDRESS=auto, /.*{unset}"):
        check_configured_address("auto")
    with listen(HTTP) as address, pytest.raises(ConfigError, match="another server listens there"):
        check_configured_address(address)
    with listen(b"") as address, pytest.raises(ConfigError, match="timed out"):
        check_configured_address(address)
    with listen(GRPC) as address:
        for one in (address, f"ray://{address}", "", "auto:that Ray finds"):
            check_configured_address(one)
