"""Load a model once: a `transformers.Pipeline` on the worker's device."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from pipemill.errors import error_message

from ..engines.gpu_memory import limit_to_share
from ..engines.text_length import forget_other_lengths
from ..library_settings import ignore_weights_keyword, set_libraries
from .missing_weights import (
    describe_missing,
    find_layers_left_out,
    find_missing_weights,
    record_loading,
)
from .model_files import FolderSource, ModelFiles
from .user_class import import_pipeline_class, register_pipeline_class


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model: which weights, and how to load them.

    Attributes:
        path: a local folder or a name on the Hugging Face Hub.
        revision: of a name on the Hub, the commit.
        dtype: "auto" (as saved), "float32", "bfloat16", "float16", or "int8", of which an engine
            makes the weights from those in float32.
        trust_remote_code: whether code in the model's folder may run.
        use_safetensors: whether only weights in safetensors are read.
        allow_missing: whether weights that the checkpoint lacks may be random numbers, and its
            layers that config.json does not count may be left out.
        pipeline_class: "package.module:Class", the user's `transformers.Pipeline`.
        num_gpus: GPUs that the actor holds; 0 means CPU.
        num_cpus: CPUs that the actor holds; on a CPU this is its number of intra-op threads.
        root: the folder in which `path` lies, where the model has other parts beside it.
        remote: what makes the folder on each machine; None for one that all machines see.
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    use_safetensors: bool = True
    allow_missing: bool = False
    pipeline_class: str | None = None
    num_gpus: float = 0
    num_cpus: float = 1
    root: str | None = None
    remote: FolderSource | None = None

    @property
    def saved_dtype(self) -> str:
        """The dtype that transformers loads the weights in."""
        return "float32" if self.dtype == "int8" else self.dtype

    @property
    def files(self) -> ModelFiles:
        """The model's small files, by name."""
        return ModelFiles(self.path, self.revision, self.root, self.remote)

    @property
    def name(self) -> str:
        """Return the path as a user knows it: that of a fetched model is its URL."""
        return self.path if self.remote is None else self.remote.url

    def here(self) -> Model:
        """Return the model with its folder on this machine."""
        files = self.files.here()
        return replace(self, path=files.path, root=files.root)

    def load(self, task: str) -> Any:
        """Return the task's pipeline with its weights on the device that this process was given."""
        import torch
        import transformers

        set_libraries(transformers)
        if self.num_gpus:
            # Ray shows an actor only the GPUs it holds, so its own is always the first.
            if not torch.cuda.is_available():
                raise RuntimeError(
                    f"actors.num_gpus is {self.num_gpus:g}, but torch {torch.__version__} "
                    f"finds no GPU on this worker{_explain_no_gpu(torch)}: "
                    "with actors.num_gpus: cpu GPUs are left alone"
                )
            device = torch.device("cuda:0")
            limit_to_share(self.num_gpus)
        else:
            device = torch.device("cpu")
            torch.set_num_threads(max(int(self.num_cpus), 1))
        source = self._make_source(task)
        if self.use_safetensors:
            source["model_kwargs"] = {"use_safetensors": True}
        with ignore_weights_keyword(), record_loading() as loadings:
            if encoder := self.find_encoder(task):
                options = {"use_safetensors": True} if self.use_safetensors else {}
                source["tokenizer"] = self.path
                source["model"] = encoder.from_pretrained(
                    self.path, revision=self.revision, dtype=self.saved_dtype, **options
                )
            pipeline = transformers.pipeline(task, device=device, dtype=self.saved_dtype, **source)
        if not self.allow_missing:
            self._check_complete(pipeline.model, loadings, task)
        forget_other_lengths(pipeline.model)
        return pipeline

    def _check_complete(self, model: Any, loadings: list[tuple[Any, Any]], task: str) -> None:
        """Raise ValueError where transformers has filled in random numbers or left layers out."""
        for loaded, info in loadings:
            if loaded is not model:
                continue
            unexpected = info.unexpected_keys
            if missing := find_missing_weights(model, info.missing_keys, task):
                raise ValueError(f"{self.path}: {describe_missing(model, missing, unexpected)}")
            if reason := find_layers_left_out(model, unexpected):
                raise ValueError(f"{self.path}: {reason}")

    def find_classes(self, task: str) -> tuple[tuple[Any, ...], Any]:
        """Return the classes that may load the task's model, and the class of its pipeline.

        The first choice comes first.
        """
        from transformers.pipelines import check_task

        own = self._make_source(task).get("pipeline_class")
        _, targets, _ = check_task(task)
        pipeline_class = own or targets["impl"]
        if isinstance(pipeline_class, str):
            module, _, name = pipeline_class.rpartition(".")
            pipeline_class = getattr(import_module(module), name)
        return tuple(targets["pt"] or ()), pipeline_class

    def read_config(self) -> Any:
        """Return the model's configuration. Raises ValueError for a model that is not known."""
        import transformers

        return transformers.AutoConfig.from_pretrained(
            self.path, revision=self.revision, trust_remote_code=self.trust_remote_code
        )

    def load_without_weights(self, task: str) -> Any:
        """Return the same pipeline on the meta device, to tokenize and to shape answers."""
        import transformers

        set_libraries(transformers)
        source = self._make_source(task)
        path = source.pop("model")
        classes, pipeline_class = self.find_classes(task)
        encoder = self.find_encoder(task)
        model = self._make_empty((encoder,) if encoder else classes, self.read_config())
        _set_generation(model, path, self.revision)
        parts = _load_parts(pipeline_class, path, source)
        return transformers.pipeline(task, model=model, device=model.device, **parts, **source)

    def _make_empty(self, auto_classes: tuple[Any, ...], config: Any) -> Any:
        """Return the model on the meta device, of the class that it has with its weights."""
        import torch
        import transformers

        # Inputs are cast to the type that the weights have where they are.
        dtype = {} if self.dtype == "auto" else {"dtype": getattr(torch, self.saved_dtype)}
        reasons = []
        with torch.device("meta"):
            for auto_class in auto_classes:
                try:
                    # Not an auto class: an encoder alone, or the model of a user's task.
                    if not hasattr(auto_class, "from_config"):
                        return auto_class._from_config(config, **dtype)
                    return auto_class.from_config(
                        config, trust_remote_code=self.trust_remote_code, **dtype
                    )
                except ValueError as error:  # it has no such architecture: the next may
                    reasons.append(str(error))
            # Donut answers questions about documents, and is in none of the task's tables.
            for name in config.architectures or ():
                if own := getattr(transformers, name, None):
                    return own._from_config(config, **dtype)
        raise ValueError(f"no model class fits {self.path}: {'; '.join(reasons)}")

    def find_encoder(self, task: str) -> Any:
        """Return the class of the encoder alone, if only that gives texts vectors; else None.

        `AutoModel` takes the decoder, too, which wants another text.
        """
        if task != "feature-extraction" or self.pipeline_class is not None:
            return None
        import transformers

        name = _ENCODERS.get(self.read_config().model_type)
        return None if name is None else getattr(transformers, name)

    def _make_source(self, task: str) -> dict[str, Any]:
        source: dict[str, Any] = {
            "model": self.path,
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.pipeline_class is not None:
            own = import_pipeline_class(self.pipeline_class)
            register_pipeline_class(task, own, source["model"], **_select_hub_options(source))
            source["pipeline_class"] = own
        return source


# Models of an encoder and a decoder, and the class that is the encoder alone.
_ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}
# What a pipeline may be made of beside its model, from the model's folder.
_PARTS = ("tokenizer", "image_processor", "video_processor", "processor")


def _select_hub_options(source: dict[str, Any]) -> dict[str, Any]:
    """Return what of a pipeline's source a configuration is loaded by."""
    return {name: source[name] for name in ("revision", "trust_remote_code")}


def _load_parts(pipeline_class: Any, path: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that the pipeline wants, or takes if the model has them."""
    import transformers

    wanted = {part: getattr(pipeline_class, f"_load_{part}", None) for part in _PARTS}
    parts = {part: path for part in _PARTS if wanted[part] is not False}
    if getattr(pipeline_class, "_load_feature_extractor", None):
        # Given its path, transformers would look for a decoder by the name of a model it loads.
        parts["feature_extractor"] = transformers.AutoFeatureExtractor.from_pretrained(
            path, **_select_hub_options(source)
        )
    return parts


def _set_generation(model: Any, path: str, revision: str | None) -> None:
    """Give the model the generation config of its folder: pipelines read it, too."""
    from transformers import GenerationConfig

    if not model.can_generate():
        return
    with suppress(OSError):  # it says nothing
        model.generation_config = GenerationConfig.from_pretrained(path, revision=revision)


def _explain_no_gpu(torch: Any) -> str:
    """Return, for a message, why torch finds no GPU: its driver may be too old."""
    try:
        torch.cuda.init()
    except Exception as error:
        return f" ({error_message(error).partition('. ')[0].strip()})"
    return ""
