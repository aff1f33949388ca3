"""Make half-done outputs of commit 00a6c82, for tests/jobs/test_old_outputs.py.

Run with that commit's code, from a worktree of it:

    git worktree add /tmp/old 00a6c82
    cp tests/references/make_outputs.py tests/references/half_done.py /tmp/old/tests/references/
    cd /tmp/old && PYTHONPATH=. python -m tests.references.make_outputs
    cp -r tests/references/outputs REPOSITORY/tests/references/
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.references import half_done

# What a killed run leaves behind names its paths: short ones that are on no machine in particular.
HOME = Path("/tmp/pipemill-half-done")
TOKENS = 24


def save_text_model(folder: Path) -> None:
    """Save a BERT that knows contradiction, neutral and entailment, for both tasks over texts."""
    import torch
    import transformers

    from tests import tiny

    torch.manual_seed(3)
    words = tiny.tokenizer(TOKENS)
    names = ["contradiction", "neutral", "entailment"]
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=TOKENS,
        initializer_range=1.0,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    words.save_pretrained(folder)


def save_image_model(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(4)
    names = ["cat", "dog", "cow", "hen"]
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        initializer_range=1.0,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = transformers.ViTForImageClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    size = {"height": 8, "width": 8}
    transformers.ViTImageProcessorPil(size=size).save_pretrained(folder)


def run_until_killed(name: str) -> None:
    """Run the job in this process, and kill it before it writes the third part.

    The dead letters of that split are written by then.
    """
    from pipemill.jobs import attempts, holder, sink
    from pipemill.jobs.cli import main

    # It was on a machine that later versions are not on.
    socket.gethostname = holder._machine = lambda: "another-machine"
    attempts._identity = lambda pid: f"another-machine/{pid}/7"
    half_done.load_input(name, missing=(half_done.MISSING,))
    write, parts = sink.write_whole, []

    def write_two(filesystem, path, data):
        if "dead-letter" not in path:
            parts.append(path)
        if len(parts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(filesystem, path, data)

    sink.write_whole = write_two
    config = HOME / f"{name}.yaml"
    config.write_text(json.dumps(half_done.job(name, HOME)))
    main(["run", str(config)])


def main() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.rmtree(half_done.OUTPUTS, ignore_errors=True)
    save_text_model(HOME / "models/text")
    save_image_model(HOME / "models/image")
    half_done.write_inputs()
    shutil.copytree(HOME / "models", half_done.OUTPUTS / "models")
    for name in half_done.JOBS:
        command = [sys.executable, "-m", "tests.references.make_outputs", name]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        shutil.copytree(HOME / name, half_done.OUTPUTS / name / "output")
    shutil.rmtree(HOME)


if __name__ == "__main__":
    if sys.argv[1:]:
        run_until_killed(sys.argv[1])
    else:
        main()
