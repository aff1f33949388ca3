"""The command line with the task `lengths` of `light`, which workers of Ray know, too.

Its imports are those of the real command: tests interrupt it while it starts. LIGHT_FAILS in the
environment makes loading fail.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from pipemill.jobs.cli import app


def load(self: Any) -> Any:
    from tests.support import light

    if os.environ.get("LIGHT_FAILS"):
        raise OSError("no such weights")
    return light._load(self)


def install(patch: Any = None) -> None:
    """Let jobs load a task that workers import from here. patch: pytest's, which undoes it."""
    from pipemill.jobs.planning import build_load
    from pipemill.pipelines.loading.task_loader import LoadTask

    from tests.support import light, light_over_ray

    light.install(patch)
    task = type("LightTask", (LoadTask,), {"__call__": light_over_ray.load})
    task.__module__ = light_over_ray.__name__
    light_over_ray.LightTask = task
    if patch is None:
        build_load.LoadTask = task
    else:
        patch.setattr(build_load, "LoadTask", task)


def __getattr__(name: str) -> Any:  # in a worker, which unpickles it by name
    if name != "LightTask":
        raise AttributeError(name)
    install()
    return globals()["LightTask"]


if __name__ == "__main__":
    parse_verb = app.parse_verb

    def parse_light(arguments: list[str]) -> app.Verb:
        verb = parse_verb(arguments)

        def run_light() -> int:
            install()
            return verb()

        return run_light

    app.parse_verb = parse_light
    sys.exit(app.main())
