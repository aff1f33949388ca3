"""Make a task that runs of its spec and what was loaded."""

from __future__ import annotations

from pipemill.actors.task import Loaded, LoadedTask

from ..adapter.check_libraries import check_libraries
from ..adapter.parameters.pipeline_keywords import PipelineKeywords
from ..adapter.pipeline_adapter import PipelineAdapter
from ..adapter.pipeline_forward import PipelineForward
from ..adapter.token_outputs import TokenOutputs, calls_model_once
from ..engines.base import GenerationEngine
from ..engines.encoder import make_encoder
from ..engines.onednn.image_layers import use_faster_layers
from ..engines.registry import AUTO, PADDED, find_engine
from ..media import let_pyav_decode
from ..pipeline_task import PipelineTask
from ..task_spec import TaskSpec


def make_task(spec: TaskSpec, loaded: Loaded) -> LoadedTask:
    """Return the task, ready for rows.

    Raises:
        ValueError: parameters that the loaded pipeline can't take, or an engine or a compiled
            model that the task has no use for.
        MissingLibrary: a library that every row would need is not installed.
    """
    if isinstance(spec, PipelineTask):
        adapter = make_adapter(spec, loaded)
        faster = None if loaded.engine == PADDED else spec.speed_up(adapter)
        return adapter if faster is None else faster
    assert spec.make is not None, f"the task {spec.name} does not say how it is made"
    task = spec.make(loaded)
    for name in ("repeats", "packed", "schedules"):  # which a class may leave out
        if not hasattr(task, name):
            setattr(task, name, False)
    return task


def make_adapter(declared: PipelineTask, loaded: Loaded) -> PipelineAdapter:
    """Return a declared task with its pipeline. Raises what `make_task` does."""
    check_libraries(declared, loaded)
    let_pyav_decode(loaded.pipeline)
    declared.set_up(loaded.pipeline, loaded.parameters)
    # Before an engine changes the model: a wrong parameter is an error of loading.
    keywords = PipelineKeywords(declared, loaded)
    by_token = _make_token_outputs(declared, loaded)
    if loaded.compiles and by_token is None:
        raise ValueError(
            "model.compile is for tasks whose model reads or labels a text, and "
            f"{declared.name} is not one of them: leave it out"
        )
    generation = _make_generation(declared, loaded)
    factory = find_engine(loaded.engine)
    runs = loaded.engine in (AUTO, PADDED) or by_token is not None or generation is not None
    if not runs and not (factory and factory.graph):
        raise ValueError(
            f"the engine {loaded.engine} (model.engine) does not run {declared.name}: leave it out"
        )
    adapter = PipelineAdapter(keywords, PipelineForward(keywords, by_token, generation))
    pipeline, levels = loaded.pipeline, adapter.levels
    # A model that writes is called with numbers of tokens that are not known beforehand.
    writes = getattr(pipeline, "_pipeline_calls_generate", False)
    # An exporter knows no such layers.
    is_exported = factory is not None and factory.graph is not None
    on_cpu = pipeline.device.type == "cpu"
    if levels and levels.shape and on_cpu and not writes and not is_exported:
        use_faster_layers(pipeline.model, levels.shape)
    return adapter


def _make_token_outputs(declared: PipelineTask, loaded: Loaded) -> TokenOutputs | None:
    if not declared.token_outputs or not calls_model_once(loaded.pipeline):
        return None
    encoder = make_encoder(loaded, declared.reads_tokens, declared.token_outputs)
    return TokenOutputs(loaded.pipeline, encoder)


def _make_generation(declared: PipelineTask, loaded: Loaded) -> GenerationEngine | None:
    """Return what writes texts; None for a task that does not, and a tokenizer that can't pad."""
    if declared.written is None or not loaded.pipeline.model.can_generate():
        return declared.generation(loaded.pipeline) if loaded.engine == AUTO else None
    factory = find_engine(loaded.engine)
    if factory is not None:
        runs = declared.written and (declared.batchable or factory.schedules_all)
        makes = factory.generate if runs else None
        gpus = (loaded.num_gpus,) if factory.spreads else ()
        return makes and makes(loaded.pipeline, declared.written, *gpus)
    tokenizer = loaded.pipeline.tokenizer
    if tokenizer is None or tokenizer.pad_token_id is None:
        return None
    # Here: the driver imports this module without torch.
    from ..engines.generation.continuous_generation import ContinuousGeneration

    return ContinuousGeneration(loaded.pipeline, declared.written)
