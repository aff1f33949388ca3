"""Which Ray a run joins."""

import socket

from pipemill.jobs.cluster import _running_here


def test_the_address_of_a_dead_head_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr("ray._private.utils.get_ray_address_file", lambda _: str(tmp_path / "at"))
    assert not _running_here()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "at").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert _running_here()
    assert not _running_here()
