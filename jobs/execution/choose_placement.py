"""Choose where a job's stages run."""

from __future__ import annotations

from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError


def choose_placement(placement: str, paths: list[str], spec: TaskSpec) -> str:
    """Return where the stages run. Raises ConfigError for a place that can't run them.

    With "auto" one actor runs them all: tasks of texts expand so fast.

    Args:
        placement: as in `actors.placement`.
        paths: of the output and the input.
        spec: the task.
    """
    if placement == "staged" and spec.expands_with_model:
        raise ConfigError(
            f"{spec.name} needs its model's weights to expand a row, and actors.placement: staged "
            "expands without them; use fused"
        )
    if any(path.startswith("memory://") for path in paths):
        if placement in ("fused", "staged"):
            raise ConfigError(
                f"memory:// lives in one process, and actors.placement: {placement} uses several; "
                "use local"
            )
        return "local"
    return "fused" if placement == "auto" else placement
