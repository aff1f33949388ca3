"""Merge a PEFT adapter into its base model, once for all processes of a machine.

A merged model is a model like any other: it is packed, checked and loaded as if it had been saved
so. Weights that neither the base nor the adapter has are not saved, so that checks miss them.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipemill.actors.child_process import receive, send, start_python, take_over_pipes
from pipemill.actors.faults.load_errors import describe_load_error
from pipemill.actors.storage.remote_folder import find_cache_folder, make_folder_once

from ..checkpoint import read_tensors
from ..model_files import ModelFiles

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# transformers' class for what an adapter says that it was trained for.
_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
# Heads whose number of labels an adapter's weights show: the base may have another head, or none.
_HEADS = ("classifier.weight", "score.weight", "classifier.out_proj.weight")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_OTHERS = (".h5", ".msgpack", ".onnx", ".gguf", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class MergedAdapter:
    """An adapter and its base; travels to workers, which merge them for their machines.

    Attributes:
        base: the files of the base model.
        adapter: those of the adapter.
        digest: of both.
        url: what users know the model by, for messages.
        use_safetensors: whether only weights in safetensors are read.
    """

    base: ModelFiles
    adapter: ModelFiles
    digest: str
    url: str
    use_safetensors: bool = True

    @property
    def copy(self) -> Path:
        """Return where the merged model is on this machine, once it is complete."""
        return find_cache_folder() / f"merged-{self.digest}"

    def fetch(self) -> Path:
        """Merge the two, if that was not done before, and return the folder.

        Raises what peft and transformers do.
        """
        return make_folder_once(self.copy, self._merge)

    def fetch_beside(self) -> str | None:
        """Do the same in another process, for drivers that import no torch; return what failed."""
        with start_python(
            __name__, environment={"CUDA_VISIBLE_DEVICES": ""}, stderr=subprocess.DEVNULL,
            new_session=False,
        ) as process:  # fmt: skip
            answer, _ = process.communicate(pickle.dumps(self))
        try:
            return pickle.loads(answer)
        except (EOFError, pickle.UnpicklingError):
            return "the process that merges them died"

    def _merge(self, folder: Path) -> None:
        import peft

        shutil.rmtree(folder, ignore_errors=True)
        base, adapter = self.base.here().download(), self.adapter.here().download()
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        tensors = read_tensors([adapter / ADAPTER_WEIGHTS])
        heads = [shape[0] for name, (_, shape) in tensors.items() if name.endswith(_HEADS)]
        labels = {"num_labels": heads[0]} if heads else {}
        model, info = _find_class(base, config).from_pretrained(
            base,
            dtype="auto",
            use_safetensors=self.use_safetensors or None,
            output_loading_info=True,
            ignore_mismatched_sizes=bool(labels),
            **labels,
        )
        lacking = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        lacking = {name for name in lacking if not _is_in_adapter(name, tensors)}
        merged = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
        _copy_other_files(base, folder)
        _copy_other_files(adapter, folder)
        kept = {name: t for name, t in merged.state_dict().items() if name not in lacking}
        merged.save_pretrained(folder, state_dict=kept)


def _find_class(base: Path, config: Mapping[str, Any]) -> Any:
    import transformers

    name = _CLASSES.get(str(config.get("task_type")))
    if name is None:
        read = json.loads((base / "config.json").read_text(encoding="utf-8"))
        name = (read.get("architectures") or ["AutoModel"])[0]
    return getattr(transformers, name)


def _is_in_adapter(name: str, tensors: Mapping[str, Any]) -> bool:
    return f"base_model.model.{name}" in tensors


def _copy_other_files(source: Path, folder: Path) -> None:
    """Copy tokenizers, processors and the like: all but weights and what is the adapter's."""
    for file in sorted(source.rglob("*")):
        name = file.relative_to(source)
        if not file.is_file() or name.parts[0].startswith((".", "checkpoint-", "adapter_")):
            continue
        if len(name.parts) > 1 or not name.name.endswith(_WEIGHTS + _OTHERS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)


def _answer() -> None:
    """Read a MergedAdapter from stdin, fetch it, and write what failed, or None, to stdout."""
    requests, answers = take_over_pipes()
    reason = None
    try:
        receive(requests).fetch()
    except Exception as error:
        reason = describe_load_error(error)
    send(answers, reason)


if __name__ == "__main__":
    _answer()
