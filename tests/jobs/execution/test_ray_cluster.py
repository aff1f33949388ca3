"""Which Ray a run joins, and with how many actors."""

import os
import threading
import time

import pytest
from pipemill.jobs.config.job import ActorsSection
from pipemill.jobs.execution import ray_cluster
from pipemill.jobs.execution.pool_size import choose_pool_size
from pipemill.jobs.execution.ray_cluster import _start, ray_session, ray_until_end
from pipemill.jobs.execution.ray_start import explain_no_ray
from ray._private.node import Node
from ray.data._internal.execution import metadata_fetcher

from pipemill.errors import ConfigError, RunError
from tests.support.listening import GRPC, listen


@pytest.mark.parametrize(
    ("grows", "given", "expected"),
    [
        (False, {}, (6, 6)),
        (False, {"min": 8, "max": 9}, (6, 9)),
        (False, {"max": 2}, (2, 2)),
        (True, {}, (6, 50)),  # Ray stops at the cluster's own limit
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


def test_threads_share_a_ray_that_the_last_of_them_shuts_down(monkeypatch):
    events = []

    def start(cluster):
        time.sleep(0.1)  # while the other thread asks for one, too
        events.append("start")

    monkeypatch.setattr(ray_cluster, "_start", start)
    monkeypatch.setattr(
        ray_cluster,
        "find_connected_ray",
        lambda: None if events[-1:] in ([], ["stop"]) else ray_cluster,
    )
    monkeypatch.setattr(ray_cluster, "_shut_down", lambda: events.append("stop"))
    first_ends = threading.Event()

    def first():
        with ray_until_end(), ray_session():
            time.sleep(0.3)
        events.append("first ends")
        first_ends.set()

    def second():
        with ray_session():
            first_ends.wait(10)
            events.append("second works")

    threads = [threading.Thread(target=one) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events == ["start", "first ends", "second works", "stop"]


def test_a_second_interrupt_does_not_make_the_shutdown_wait(monkeypatch):
    """Ray Data was shutting down, and no longer stopped the thread that fetches metadata."""
    fetcher = metadata_fetcher.ThreadedMetadataFetcher()
    fetcher.start()
    monkeypatch.setattr(ray_cluster, "_is_ours", True)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    started = time.monotonic()
    ray_cluster._shut_down()
    assert time.monotonic() - started < 5
    assert not fetcher._thread.is_alive()


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


@pytest.mark.parametrize(("error", "tries"), [(KeyboardInterrupt, 1), (Exception, 2)])
def test_the_processes_of_a_ray_that_does_not_start_are_ended(monkeypatch, error, tries):
    ended = []

    class StartingNode(Node):
        def __init__(self):
            raise error("timed out during startup.")

        def kill_all_processes(self, **settings):
            ended.append(settings)

    monkeypatch.setattr("ray.init", lambda *_, **__: StartingNode())
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises((KeyboardInterrupt, RunError)):
        _start("local")
    assert ended == [{"check_alive": False, "allow_graceful": False}] * tries


def test_a_ray_whose_processes_are_up_is_left_to_its_shutdown(monkeypatch):
    class RunningNode(Node):
        def __init__(self):
            """Started."""

        def kill_all_processes(self, **settings):
            pytest.fail("Ray's code in this process would end it")

    def connect(node):
        raise KeyboardInterrupt

    monkeypatch.setattr("ray._private.worker._global_node", RunningNode())
    monkeypatch.setattr("ray.init", lambda *_, **__: connect(RunningNode()))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        _start("local")


def test_a_later_ray_of_the_caller_gets_no_level_from_here(monkeypatch):
    levels = []

    def init(*args, **settings):
        levels.append(os.environ["RAY_BACKEND_LOG_LEVEL"])

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "debug")
    _start("local")
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL")
    _start("local")
    assert levels == ["debug", "fatal"]
    assert "RAY_BACKEND_LOG_LEVEL" not in os.environ


def test_a_ray_without_a_home_gets_its_token_from_the_environment(monkeypatch):
    tokens = []

    def init(*args, **settings):
        tokens.append(os.environ.get("RAY_AUTH_TOKEN"))
        if len(tokens) == 1:
            raise PermissionError(13, "Permission denied", "/.ray")

    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that it is removed afterwards
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    _start("local")
    assert tokens[0] is None
    assert len(tokens[1]) == 64


def test_a_folder_in_which_ray_cannot_start_is_named(monkeypatch, tmp_path):
    def init(*args, **settings):
        raise OSError(30, "Read-only file system", "/tmp/ray")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    said = r"; /proc, where Ray keeps its files, (can't|has only 0).* RAY_TMPDIR"
    with pytest.raises(RunError, match=said):
        _start("local")


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
    with listen(GRPC) as here:
        monkeypatch.setenv("RAY_ADDRESS", here)
        with pytest.raises(expected, match=message.replace("HERE", here)) as raised:
            _start("auto")
    assert type(raised.value) is expected


def test_a_ray_that_is_looked_for_and_not_found_is_no_matter_of_tokens():
    raised = ConnectionError("Could not find any running Ray instance. Please specify the one")
    error = explain_no_ray(raised, "auto")
    assert type(error) is ConfigError
    assert str(error).startswith("no Ray runs on this machine (RAY_ADDRESS=auto): start one")
