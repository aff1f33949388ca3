"""What transformers 4.57.6 answers, case by case, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

HERE = Path(__file__).parent


def write(
    task: str,
    cases: list[dict[str, Any]],
    show: Callable[[Any], Any] = lambda answer: answer,
    by: str | None = None,
) -> None:
    """Answer the cases and write them to `TASK.json`; `by` is the task asked, if it is another.

    A case has `model`, `input`, and perhaps `task` (where it differs from the file's), `made` and
    `called` (the pipeline's parameters, when it is made and when it is called) and `seed`. It gets
    the `answer`, as `show` makes it JSON, or the name of the `error`.
    """
    for case in cases:
        try:
            case["answer"] = show(answer(by or task, case))
        except Exception as error:
            case["error"] = type(error).__name__
    file = HERE / f"{task.replace('-', '_')}.json"
    rows = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    file.write_text(f"[\n{rows}\n]\n")


def answer(task: str, case: dict[str, Any]) -> Any:
    """What the installed transformers answers to a case."""
    return ask(load(case.get("task", task), case["model"], case.get("made", {})), case)


def load(task: str, model: str, made: dict[str, Any]) -> Any:
    folder = HERE / "models" / model
    if (folder / "preprocessor_config.json").exists():
        made = {**made, "image_processor": image_processor(folder)}
    return transformers.pipeline(task, model=str(folder), device="cpu", **made)


def ask(pipeline: Any, case: dict[str, Any]) -> Any:
    called = dict(case.get("called", {}))
    if "generation_config" in called:
        called["generation_config"] = transformers.GenerationConfig(**called["generation_config"])
    torch.manual_seed(case.get("seed", 0))
    # A copy of the input: some pipelines write into it.
    return pipeline(with_images(case["input"]), **called)


def image_processor(folder: Path) -> Any:
    """The one that resizes with pillow: with torchvision, pixels differ a little."""
    pillow = {"use_fast": False} if transformers.__version__ < "5" else {"backend": "pil"}
    return transformers.AutoImageProcessor.from_pretrained(folder, **pillow)


def with_images(given: Any) -> Any:
    """A copy of the input, with the paths of the images that it names."""
    if isinstance(given, list):
        return [with_images(item) for item in given]
    if isinstance(given, dict):
        return {key: with_images(value) for key, value in given.items()}
    if isinstance(given, str) and given.endswith(".png"):
        return str(HERE / "images" / given)
    return given
