"""pipemill: dataset-scale inference with Hugging Face task pipelines on Ray.

Importing this package imports neither torch, transformers nor ray: a driver, a submitter and
``pipemill --help`` start at once. The heavy imports happen in the workers, which need them.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

_here = Path(__file__).parent
if not (_here / "pipelines").is_dir():
    # A source checkout: the sub-packages are the folders beside this one.
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from pipemill.actors.task import Column, Parameter, Task
    from pipemill.errors import ConfigError, ModelError, RunError, RunInterrupted
    from pipemill.jobs.apply import apply
    from pipemill.jobs.config.job import Job
    from pipemill.jobs.measuring.benchmark import Measurement
    from pipemill.jobs.measuring.job_estimate import JobEstimate
    from pipemill.jobs.output.read_output import read
    from pipemill.jobs.output.run_report import Report
    from pipemill.jobs.plan import plan
    from pipemill.jobs.preview import Preview, preview
    from pipemill.jobs.push import Publication, push
    from pipemill.jobs.report import report
    from pipemill.jobs.retry import retry
    from pipemill.jobs.run import run
    from pipemill.jobs.status import Status, status
    from pipemill.jobs.submission.submission import Submission
    from pipemill.jobs.submit import submit
    from pipemill.jobs.tasks import TaskList, TaskSummary, tasks
    from pipemill.jobs.tune import Tuning, tune
    from pipemill.jobs.verify import Verification, verify
    from pipemill.pipelines.pipeline_task import PipelineTask
    from pipemill.pipelines.registry import register_task
    from pipemill.pipelines.restored import restore_pipelines
    from pipemill.sample_data import sample

__version__ = "0.1.0"
__all__ = [
    "Column",
    "ConfigError",
    "Job",
    "JobEstimate",
    "Measurement",
    "ModelError",
    "Parameter",
    "PipelineTask",
    "Preview",
    "Publication",
    "Report",
    "RunError",
    "RunInterrupted",
    "Status",
    "Submission",
    "Task",
    "TaskList",
    "TaskSummary",
    "Tuning",
    "Verification",
    "apply",
    "plan",
    "preview",
    "push",
    "read",
    "register_task",
    "report",
    "restore_pipelines",
    "retry",
    "run",
    "sample",
    "status",
    "submit",
    "tasks",
    "tune",
    "verify",
]

_HOME = {
    "Column": "pipemill.actors.task",
    "ConfigError": "pipemill.errors",
    "Job": "pipemill.jobs.config.job",
    "JobEstimate": "pipemill.jobs.measuring.job_estimate",
    "Measurement": "pipemill.jobs.measuring.benchmark",
    "ModelError": "pipemill.errors",
    "Parameter": "pipemill.actors.task",
    "PipelineTask": "pipemill.pipelines.pipeline_task",
    "Preview": "pipemill.jobs.preview",
    "Publication": "pipemill.jobs.push",
    "Report": "pipemill.jobs.output.run_report",
    "RunError": "pipemill.errors",
    "RunInterrupted": "pipemill.errors",
    "Status": "pipemill.jobs.status",
    "Submission": "pipemill.jobs.submission.submission",
    "Task": "pipemill.actors.task",
    "TaskList": "pipemill.jobs.tasks",
    "TaskSummary": "pipemill.jobs.tasks",
    "Tuning": "pipemill.jobs.tune",
    "Verification": "pipemill.jobs.verify",
    "apply": "pipemill.jobs.apply",
    "plan": "pipemill.jobs.plan",
    "preview": "pipemill.jobs.preview",
    "push": "pipemill.jobs.push",
    "read": "pipemill.jobs.output.read_output",
    "register_task": "pipemill.pipelines.registry",
    "report": "pipemill.jobs.report",
    "restore_pipelines": "pipemill.pipelines.restored",
    "retry": "pipemill.jobs.retry",
    "run": "pipemill.jobs.run",
    "sample": "pipemill.sample_data",
    "status": "pipemill.jobs.status",
    "submit": "pipemill.jobs.submit",
    "tasks": "pipemill.jobs.tasks",
    "tune": "pipemill.jobs.tune",
    "verify": "pipemill.jobs.verify",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from pipemill.errors import explain_interrupt

        with explain_interrupt("interrupted"):
            return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pipemill' has no attribute {name!r}")


def __dir__() -> list[str]:
    # What a notebook offers to complete: not what this file imports.
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
