"""Tensors meet on one device: on a simulated GPU, tasks give the answers of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent.parent
# Of each way to compute one; `tests/gpu` has them all.
TASKS = [
    "automatic-speech-recognition",
    "decision",
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-to-text",
    "object-detection",
    "question-answering",
    "text-classification",
    "token-classification",
    "translation_en",
    "zero-shot-classification",
]


@pytest.mark.skipif(sys.platform != "linux", reason="changes torch's library for Linux")
@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built for a real one")
def test_tasks_give_the_answers_of_the_cpu():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["-p", "tests.support.simulated_gpu", "tests/gpu/test_tasks.py"]
    command += ["-k", f"float32 and ({' or '.join(TASKS)})"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout, done.stdout
