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
    from pipemill.errors import ConfigError, ModelError, RunError, RunInterrupted
    from pipemill.jobs.config.job import Job
    from pipemill.jobs.output.run_report import Report
    from pipemill.jobs.retry import retry
    from pipemill.jobs.run import run
    from pipemill.jobs.status import status
    from pipemill.jobs.verify import verify
    from pipemill.pipelines.restored import restore_pipelines

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "Job",
    "ModelError",
    "Report",
    "RunError",
    "RunInterrupted",
    "restore_pipelines",
    "retry",
    "run",
    "status",
    "verify",
]

_HOME = {
    "ConfigError": "pipemill.errors",
    "Job": "pipemill.jobs.config.job",
    "ModelError": "pipemill.errors",
    "Report": "pipemill.jobs.output.run_report",
    "RunError": "pipemill.errors",
    "RunInterrupted": "pipemill.errors",
    "restore_pipelines": "pipemill.pipelines.restored",
    "retry": "pipemill.jobs.retry",
    "run": "pipemill.jobs.run",
    "status": "pipemill.jobs.status",
    "verify": "pipemill.jobs.verify",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pipemill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
