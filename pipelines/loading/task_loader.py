"""Load a task on a worker: from its name and a model to the stages that run there."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
from pipemill.actors.batch import Batch
from pipemill.actors.compute.model_trial import ModelTrial
from pipemill.actors.compute.stages import Stages
from pipemill.actors.compute.token_budget import TokenBudget
from pipemill.actors.faults.load_errors import LoadError
from pipemill.actors.task import Loaded

from pipemill.errors import error_message

from ..adapter.row_values import list_media_kinds
from ..dummy_rows import make_dummy_rows
from ..embeddings.static_folder import StaticFolder, find_static_folder
from ..embeddings.static_model import StaticModel, load_static_model
from ..engines.graphs.model_graph import GraphSettings, install_graph, record_calls
from ..engines.graphs.runtime import GraphRuntime
from ..engines.model_call import report_layers
from ..engines.registry import AUTO, find_engine
from ..media import MediaAccess, require_media_library
from ..registry import find_task, is_built_in, register_task
from ..restored import restore_pipelines
from ..task_spec import TaskSpec
from ..user_pipeline import user_pipeline_task
from .fast_imports import gc_paused
from .make_task import make_task
from .model import Model
from .model_fit import find_misfit

# Tokens of a micro-batch, to be tried where the job names none, the likely best first: on a CPU
# as many as its caches hold, on a GPU enough to fill it.
_ON_CPU = (2048, 4096, 1024)
_ON_GPU = (16384, 32768, 65536)
# What transformers says where it can't make a tokenizer of a folder's files.
_NO_TOKENIZER = "Couldn't instantiate the backend tokenizer"
_STATIC = (65536,)  # their vectors are gathered in blocks that fit the caches


@dataclass(frozen=True, kw_only=True)
class LoadTask:
    """All that a worker needs to load a task; travels to the worker, and loads when called.

    Attributes:
        columns: (the task's column, the user's column) pairs.
        parameters: the task's parameters, as JSON, so that equal ones compare equal.
        max_tokens: the budget of a micro-batch; None for the device's default.
        weights: False for workers that only tokenize and shape answers.
        own: whether the pipeline is the user's.
        compiles: whether torch compiles the model.
        engine: what computes, see `engines.registry`.
        examples: rows to try an exported model with, as an Arrow stream; None for other engines.
        media: reads what rows name by path or URL.
        checks_fit: whether the worker finds out if the model can do the task. Else the driver did.
        schema: the columns that the task adds, if they are declared or were seen in a sample.
        files: JSON files of the model's folder that say how it is used, by name, as JSON.
        location: from where the worker imports the task, if a program registered it.
    """

    task: str
    model: Model
    columns: tuple[tuple[str, str], ...]
    parameters: str = "{}"
    max_tokens: int | None = None
    weights: bool = True
    own: bool = False
    compiles: bool = False
    engine: str = AUTO
    examples: bytes | None = field(default=None, repr=False)
    checks_fit: bool = False
    schema: bytes | None = None
    media: MediaAccess = field(default_factory=MediaAccess)
    files: str = "{}"
    location: str | None = None

    def __call__(self) -> Stages:
        return self.stages(self.loaded())

    def loaded(self) -> Loaded:
        """Load the pipeline, and return it with what the job says about it."""
        if (static := self.static_folder) is not None:
            return self._describe(load_static_model(self.resolved_model().files, static))
        # The user's process has imported them, and holds much else that is not to stay.
        with nullcontext() if "transformers.pipelines" in sys.modules else gc_paused():
            restore_pipelines()
        # A pipeline of which nothing is known may need its weights anywhere.
        whole = self.weights or self.own
        spec, model, factory = self.spec(), self.resolved_model(), find_engine(self.engine)
        read = tuple(c for c in spec.inputs if c.name in dict(self.columns))
        for kind in list_media_kinds(read):
            require_media_library(kind)  # before transformers says so in its own way
        if self.checks_fit and (misfit := self.find_misfit()) is not None:
            raise LoadError(misfit, for_good=True)
        computes_here = whole and (factory is None or factory.loads_weights)
        if factory is not None and factory.graph is not None:
            model = replace(model, dtype="float32")  # which the graph is made from
        if whole and not computes_here:
            # The engine reads the weights itself: a name alone is that of the newest commit.
            folder = model.files.download(pickled=not model.use_safetensors)
            model = replace(model, path=str(folder), revision=None)
        load = model.load if computes_here else model.load_without_weights
        try:
            pipeline = load(spec.name)
        except Exception as error:
            damage = model.files.find_damage()
            if damage is None and _NO_TOKENIZER in error_message(error):
                damage = model.files.describe_tokenizer_files()
            if damage is None:
                raise
            raise LoadError(f"loading failed: {damage}", for_good=True) from error
        if computes_here and not self.compiles:  # hooks would break a compiled graph
            report_layers(pipeline.model)
        return self._describe(pipeline, whole)

    def _describe(self, pipeline: Any, whole: bool = True) -> Loaded:
        return Loaded(
            pipeline=pipeline,
            parameters=json.loads(self.parameters),
            columns=tuple(name for name, _ in self.columns),
            media=self.media,
            compiles=self.compiles and whole,
            engine=self.engine if whole else AUTO,
            num_gpus=self.model.num_gpus,
            schema=None if self.schema is None else pa.ipc.read_schema(pa.py_buffer(self.schema)),
            files=json.loads(self.files),
            file=self.resolved_model().files.find,
        )

    def find_misfit(self) -> str | None:
        """Return why the model can't do the task; None if nothing is known against it."""
        if self.static_folder is not None:
            return None
        return find_misfit(self.spec(), self.resolved_model(), self.own)

    def stages(self, loaded: Loaded) -> Stages:
        """Return the stages of the loaded task."""
        on_cpu = loaded.pipeline.device.type in ("cpu", "meta")
        usual: tuple[int, ...] = _ON_CPU if on_cpu else _ON_GPU
        if isinstance(loaded.pipeline, StaticModel):
            usual = _STATIC
        if self.compiles:  # what takes time at first is the compiler
            usual = usual[:1]
        columns = dict(self.columns)
        task = make_task(self.spec(), loaded)
        factory = find_engine(loaded.engine)
        if factory is not None and factory.graph is not None:
            self._install_graph(factory.graph, loaded, Stages(task, columns, TokenBudget(512)))
        budget = TokenBudget(*([self.max_tokens] if self.max_tokens else usual))
        return Stages(task, columns, budget, self._make_trial(loaded, columns))

    def _make_trial(self, loaded: Loaded, columns: dict[str, str]) -> ModelTrial | None:
        """Return what stops the job if the model answers no row at all."""
        if self.own or not is_built_in(self.task):  # only its author knows what it takes
            return None
        make = partial(make_dummy_rows, self.spec(), loaded.pipeline, columns)
        return ModelTrial(task=self.task, make=make, computes=self.weights)

    def _install_graph(self, runtime: GraphRuntime, loaded: Loaded, stages: Stages) -> None:
        """Let an exported graph compute in place of the model, made with the job's first rows."""
        model, dtype = loaded.pipeline.model, self.model.dtype
        rows = pa.ipc.open_stream(self.examples).read_all() if self.examples else None
        with record_calls(model) as calls:
            if rows is not None:
                stages.process(Batch(rows))
        dtype = runtime.dtypes[0] if dtype == "auto" else dtype
        threads = max(int(self.model.num_cpus), 1)
        install_graph(model, calls, GraphSettings(runtime=runtime, dtype=dtype, threads=threads))

    def resolved_model(self) -> Model:
        """Return the model on this machine, with the pipeline class that the task may bring."""
        model, own_class = self.model.here(), self.spec().pipeline_class
        if model.pipeline_class is None and own_class:
            return replace(model, pipeline_class=own_class)
        return model

    @property
    def loads(self) -> tuple[LoadTask, ...]:
        """Return what loads each task: this one."""
        return (self,)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the name of the model."""
        return (self.model.name,)

    def with_num_gpus(self, num_gpus: float) -> LoadTask:
        """Return the same for workers with another share of a GPU."""
        return replace(self, model=replace(self.model, num_gpus=num_gpus))

    def with_changes(self, **changes: Any) -> LoadTask:
        """Return the same with other fields."""
        return replace(self, **changes)

    @property
    def writes_texts(self) -> bool:
        """Whether the task writes texts after prompts, of which each takes its own time."""
        return getattr(self.spec(), "written", None) is not None

    def spec(self) -> TaskSpec:
        """Return the task, not loaded."""
        if self.location is not None:
            return register_task(self.location)
        if self.own:
            return user_pipeline_task(self.task, tuple(name for name, _ in self.columns))
        spec = find_task(self.task)
        # transformers does not know static embeddings.
        return spec if self.static_folder is None else replace(spec, plain=None)

    @property
    def static_folder(self) -> StaticFolder | None:
        """How the model's folder holds static embeddings; None if it holds another model."""
        return None if self.own else find_static_folder(json.loads(self.files))
