"""The names that task packages import from here; their home is `pipeline_task`."""

from .pipeline_task import PipelineTask, fixed

__all__ = ["PipelineTask", "fixed"]
