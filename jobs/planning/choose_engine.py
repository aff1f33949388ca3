"""Choose what computes a job: the engine, the dtype, and a GPU or CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipemill.pipelines.engines.graphs.runtime import GRAPH_TASKS, GraphRuntime
from pipemill.pipelines.engines.registry import find_engine
from pipemill.pipelines.task_spec import TaskSpec

from pipemill.errors import ConfigError

if TYPE_CHECKING:
    from ..config.job import Job
    from .resolve_task import ResolvedTask


def check_engine(job: Job, spec: TaskSpec, own: bool) -> None:
    """Raise ConfigError for an engine that is unknown, or that can't do what the job wants.

    own: whether the pipeline is the user's.
    """
    if job.parameters.get("json_schema") is not None and job.model.engine != "vllm":
        raise ConfigError(
            "json_schema needs model.engine: vllm, which can hold texts to a schema; set it, or "
            "leave json_schema out"
        )
    try:
        runtime = find_graph_runtime(job)
    except LookupError as error:
        raise ConfigError(f"model.engine: {error.args[0]}") from None
    if runtime is None:
        if job.model.dtype == "int8":
            raise ConfigError(
                "model.dtype int8 is for the engines onnx and openvino: set model.engine to one of "
                "them"
            )
        if not own and not _may_run(job, spec):
            raise ConfigError(
                f"model.engine {job.model.engine} does not run {spec.name}: leave it out"
            )
        return
    name, actors = job.model.engine, job.actors
    if own or spec.name not in GRAPH_TASKS:
        which = f"{spec.name} with your own pipeline" if own else spec.name
        raise ConfigError(
            f"model.engine {name} runs {', '.join(GRAPH_TASKS)}, not {which}: leave it out"
        )
    if job.model.dtype not in ("auto", *runtime.dtypes):
        raise ConfigError(
            f"model.engine {name} computes in {' or '.join(runtime.dtypes)}, not in "
            f"{job.model.dtype} (model.dtype)"
        )
    if job.model.compile:
        raise ConfigError(f"model.engine {name} and model.compile are both given: leave one out")
    if actors.num_gpus not in ("auto", "cpu", 0):
        raise ConfigError(
            f"model.engine {name} computes on CPUs, but actors.num_gpus is {actors.num_gpus}: "
            "leave one of the two out"
        )


def _may_run(job: Job, spec: TaskSpec) -> bool:
    """Tell whether the engine may run a task; one that only writes runs those that write texts."""
    factory = find_engine(job.model.engine)
    return factory is None or factory.encode is not None or bool(getattr(spec, "written", None))


def find_graph_runtime(job: Job) -> GraphRuntime | None:
    """Return what runs the job's exported model; None where the model itself computes."""
    factory = find_engine(job.model.engine)
    return None if factory is None else factory.graph


def computes_on_cpu(job: Job, task: ResolvedTask) -> bool:
    """Tell whether a GPU would be of no use to a job."""
    return task.is_static or find_graph_runtime(job) is not None


def choose_dtype(job: Job, spec: TaskSpec, own: bool, then: object = None) -> str:
    """Return the dtype that the job names, or for "auto" the one that suits the device.

    "auto" is bfloat16 on a GPU, and as saved on a CPU. The user's pipeline, and a task that can't
    compute in bfloat16, is left as saved on a GPU, too.

    Args:
        job: the job.
        spec: its task.
        own: whether the pipeline is the user's.
        then: what was chosen for the parts of the output: it holds, even if the device is another
            one now. None without parts.
    """
    if job.model.dtype != "auto":
        return job.model.dtype
    if then in ("auto", "bfloat16"):
        return str(then)
    if not job.actors.gpus_each:
        return "auto"
    return "auto" if own or spec.wants_float32 else "bfloat16"
