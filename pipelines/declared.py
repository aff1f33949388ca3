"""The names under which task packages used to import `PipelineTask` and `fixed`."""

from .pipeline_task import PipelineTask, fixed

__all__ = ["PipelineTask", "fixed"]
