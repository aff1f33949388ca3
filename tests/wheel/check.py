"""Uses the wheel where it is installed alone; `check.sh` runs it outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PIPEMILL = Path(sys.executable).with_name("pipemill")
WORDS = "the river is cold warm old mill stands near water a good man goes home".split()
TEXTS = ["the river is cold", "a good man goes home", "the old mill stands near water"]
EXTRA = "pip install 'pipemill[media]'"


def make_model(name: str, head: str) -> str:
    """Saves a BERT of one layer with random weights."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = HERE / name
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    getattr(transformers, f"BertFor{head}")(config).save_pretrained(folder)
    return name


def called(*command: str | Path) -> tuple[int, str, str, float]:
    """Exit status, stdout and stderr of a command, and its seconds."""
    # Its folder first in PATH: Ray starts its workers by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    done = subprocess.run(
        list(map(str, command)), cwd=HERE, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


def works(*command: str | Path) -> str:
    """The stdout of a command that ends well."""
    status, out, err, _ = called(*command)
    assert status == 0, f"{' '.join(map(str, command))}: exit status {status}\n{err}"
    return out


def job(task: str, model: str, output: str, *more: str) -> list[str]:
    names = ["--task", task, "--model", model, "--input", "in.parquet", "--output", output]
    return [*names, *more]


def check_it_is_the_wheel_alone() -> None:
    import pipemill

    assert Path(pipemill.__file__).is_relative_to(Path(sys.prefix)), pipemill.__file__
    assert find_spec("PIL") is None
    assert find_spec("av") is None
    works(sys.executable, "-m", "pip", "check")


def check_tasks() -> None:
    assert "text-classification" in works(PIPEMILL, "tasks")
    assert "image" in works(PIPEMILL, "tasks", "image-classification")


def check_a_text_task_with_ray() -> None:
    task = job("text-classification", "classifier", "with-ray", "--set", "actors.placement=fused")
    out = works(PIPEMILL, "run", *task)
    assert json.loads(out.splitlines()[-1])["done"] == len(TEXTS)


def check_a_text_task_in_this_process_and_all_verbs_after_it() -> None:
    task = job("text-classification", "classifier", "local", "--set", "actors.placement=local")
    out = works(sys.executable, "-m", "pipemill.jobs.run", *task)
    assert json.loads(out.splitlines()[-1])["done"] == len(TEXTS)
    truth = """
import sys, pyarrow.dataset as ds, transformers
rows = ds.dataset("local").to_table().to_pylist()
truth = transformers.pipeline("text-classification", model="classifier")
for row in rows:
    answer = truth(row["text"])[0]
    assert row["label"] == answer["label"] and abs(row["score"] - answer["score"]) < 1e-5
"""
    works(sys.executable, "-c", truth)
    works(PIPEMILL, "status", "local")
    works(PIPEMILL, "verify", "local", "--sample", "2")
    works(PIPEMILL, "report", "local")
    works(PIPEMILL, "retry", *task)


def check_a_restored_task() -> None:
    task = job("question-answering", "reader", "read", "--set", "actors.placement=local")
    out = works(PIPEMILL, "run", *task)
    assert json.loads(out.splitlines()[-1])["done"] == len(TEXTS)


def check_several_tasks() -> None:
    tasks = [
        {"task": "text-classification", "model": "classifier", "name": "first"},
        {"task": "fill-mask", "model": "filler", "where": "first_score > 2", "parameters": {}},
    ]
    names = ["--input", "in.parquet", "--output", "several", "--set", f"tasks={json.dumps(tasks)}"]
    out = json.loads(works(PIPEMILL, "run", *names).splitlines()[-1])
    assert out["done"] == len(TEXTS)
    assert out["tasks"] == {"first": len(TEXTS), "fill-mask": 0}


def check_plan_preview_and_tune() -> None:
    task = job("text-classification", "classifier", "never")
    assert json.loads(works(PIPEMILL, "plan", *task).splitlines()[-1])["rows"] == len(TEXTS)
    works(PIPEMILL, "preview", *task)
    works(PIPEMILL, "tune", *task, "--seconds", "0.5")
    assert not (HERE / "never").exists()


def check_python() -> None:
    code = """
import pipemill
for name in pipemill.__all__:
    getattr(pipemill, name)
report = pipemill.run(
    task="fill-mask", model="filler", input="masked.parquet", output="python",
    actors={"placement": "local"},
)
assert report.done == 1, report
"""
    works(sys.executable, "-c", code)


def check_a_media_task_without_its_extra() -> None:
    for verb in ("run", "plan", "preview"):
        status, out, err, seconds = called(
            PIPEMILL, verb, *job("image-classification", "classifier", "pictures")
        )
        assert (status, out) == (2, ""), f"{verb}: exit status {status}\n{err}"
        assert "pillow" in err, err
        assert EXTRA in err, err
        assert "Traceback" not in err, err
        assert seconds < 20, f"{verb} took {seconds:.1f} s to say so"
    assert not (HERE / "pictures").exists()


def check_a_model_without_its_library() -> None:
    folder = HERE / "sentences"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "camembert"}')
    shutil.copy(HERE / "filler/model.safetensors", folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    (folder / "sentencepiece.bpe.model").write_bytes(b"\n\x0e\n\x05<unk>")
    status, _, err, _ = called(PIPEMILL, "run", *job("fill-mask", "sentences", "filled"))
    assert status == 2, err
    assert "pip install 'pipemill[tokenizers]'" in err, err


def main() -> int:
    rows = {
        "text": TEXTS,
        "question": ["who goes home"] * 3,
        "context": TEXTS,
        "image": [b"x"] * 3,
    }
    pq.write_table(pa.table(rows), HERE / "in.parquet")
    pq.write_table(pa.table({"text": ["the river is [MASK]"]}), HERE / "masked.parquet")
    make_model("classifier", "SequenceClassification")
    make_model("reader", "QuestionAnswering")
    make_model("filler", "MaskedLM")
    checks = [value for name, value in globals().items() if name.startswith("check_")]
    failed = 0
    for check in checks:
        started = time.monotonic()
        try:
            check()
        except Exception as error:
            failed += 1
            print(f"FAILED {check.__name__}: {error}", flush=True)
        else:
            print(f"ok {check.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
