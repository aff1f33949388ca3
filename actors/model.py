"""Load a model once: a `transformers.Pipeline` on the worker's device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .float32 import choose_matmul


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which weights, and how to load them.

    path: a local folder or a name on the Hugging Face Hub.
    dtype: "auto" (as saved), "float32", "bfloat16" or "float16".
    num_gpus: GPUs that the actor holds; 0 means CPU.
    num_cpus: CPUs that the actor holds; on CPU this is its number of intra-op threads.
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    num_gpus: float = 0
    num_cpus: float = 1

    def load(self, task: str) -> Any:
        """The task's pipeline with its weights on the device that this process was given."""
        import torch
        import transformers

        _quiet(transformers)
        if self.num_gpus:
            # Ray shows an actor only the GPUs it holds, so its own is always the first.
            if not torch.cuda.is_available():
                raise RuntimeError(
                    f"actors.num_gpus is {self.num_gpus:g}, but torch {torch.__version__} "
                    "finds no GPU on this worker"
                )
            device = torch.device("cuda:0")
        else:
            device = torch.device("cpu")
            torch.set_num_threads(max(int(self.num_cpus), 1))
            choose_matmul()
        return transformers.pipeline(task, model=self.path, device=device, **self._options())

    def load_without_weights(self, task: str) -> Any:
        """The same pipeline on the meta device, for tokenizing and for shaping answers."""
        import torch
        import transformers
        from transformers.pipelines import check_task

        _quiet(transformers)
        options = self._options()
        remote = {k: options[k] for k in ("revision", "trust_remote_code")}
        config = transformers.AutoConfig.from_pretrained(self.path, **remote)
        reasons = []
        for auto_class in check_task(task)[1]["pt"]:
            try:
                with torch.device("meta"):
                    model = auto_class.from_config(config, trust_remote_code=self.trust_remote_code)
            except ValueError as error:  # this class has no such architecture: the next may
                reasons.append(str(error))
                continue
            return transformers.pipeline(
                task, model=model, tokenizer=self.path, device=model.device, **remote
            )
        raise ValueError(f"no model class of {task} fits {self.path}: {'; '.join(reasons)}")

    def _options(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "dtype": self.dtype,
            "trust_remote_code": self.trust_remote_code,
        }


def _quiet(transformers: Any) -> None:
    # A worker's stderr is read by nobody; weight-loading bars only fill the logs.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
