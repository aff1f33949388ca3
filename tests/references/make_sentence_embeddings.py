"""Make tiny folders of sentence-transformers, and what `SentenceTransformer.encode` makes of texts.

To make them again, from the checkout's root:

    python3.11 -m venv /tmp/st
    /tmp/st/bin/pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
    HF_HUB_OFFLINE=1 /tmp/st/bin/python -m tests.references.make_sentence_embeddings

The transformers lie in `sentence_transformers/bases/`, and each folder's other files in
`sentence_transformers/folders/NAME/`: `sentence_folders.build` puts the two together.
"""

from __future__ import annotations

import filecmp
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.references.sentence_folders import BASES, FOLDERS, VECTORS, build
from tests.support import tiny

TEXTS = [*tiny.texts(6, seed=3, longest=14), "", "Paris [MASK] LONDON?"]
LONG = [tiny.sentence(n, n) for n in (40, 70, 25)]
PROMPTS = {"query": "query for a mill : ", "document": "", "other": "Find Paris "}
OLD = "sentence_transformers.models"


def make() -> None:
    try:
        import sentence_transformers
    except ImportError:
        print("sentence_embeddings needs sentence-transformers: left as they are")
        return
    print(f"sentence-transformers {sentence_transformers.__version__}")
    for folder in (BASES, FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
    _make_bases()
    cases = {}
    for name, base, write, encodings in _folders():
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / "written"
            write(BASES / base, written)
            _keep_differences(written, BASES / base, FOLDERS / name)
            (FOLDERS / name / "base").write_text(f"{base}\n")
            whole = build(name, Path(scratch) / "whole")
            model = sentence_transformers.SentenceTransformer(str(whole), device="cpu")
            cases[name] = [_encoded(model, **encoding) for encoding in encodings]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items())
    VECTORS.write_text(f"{{\n{lines}\n}}\n")


def _encoded(model: Any, texts: list[str] = TEXTS, **options: Any) -> dict[str, Any]:
    vectors = model.encode(texts, show_progress_bar=False, **options)
    return {"texts": texts, "options": options, "vectors": vectors.astype(float).round(6).tolist()}


def _make_bases() -> None:
    import torch
    import transformers

    shape = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 13, "max_position_embeddings": 48, "initializer_range": 0.6}
    words = tiny.tokenizer(48)
    torch.manual_seed(1)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **shape))
    _save(bert, words, "bert")
    eos = tiny.tokenizer(1000)
    eos.backend_tokenizer.post_processor = _ends_with("[SEP]")
    eos.padding_side = "left"
    config = transformers.Qwen3Config(
        vocab_size=len(words), num_key_value_heads=1, head_dim=6, **shape, pad_token_id=0
    )
    _save(transformers.Qwen3Model(config), eos, "qwen3")
    cased = tiny.tokenizer(48)
    cased.backend_tokenizer.normalizer = None
    _save(bert, cased, "cased")
    settings = {"d_model": 12, "d_kv": 6, "d_ff": 13, "num_layers": 2, "num_heads": 2}
    t5 = transformers.T5Config(vocab_size=len(words), initializer_factor=1.5, **settings)
    _save(transformers.T5EncoderModel(t5), words, "t5")


def _ends_with(token: str) -> Any:
    from tokenizers import processors

    return processors.TemplateProcessing(single=f"$A {token}", special_tokens=[(token, 3)])


def _save(model: Any, words: Any, name: str) -> None:
    model.eval().save_pretrained(BASES / name)
    words.save_pretrained(BASES / name)


def _keep_differences(written: Path, base: Path, folder: Path) -> None:
    for file in sorted(written.rglob("*")):
        place = file.relative_to(written)
        old = base / file.name
        if file.is_dir() or file.name == "README.md" or str(place) == "config.json":
            continue
        if old.exists() and filecmp.cmp(file, old, shallow=False):
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / place)


def _folders() -> list[tuple[str, str, Any, list[dict[str, Any]]]]:
    """Name, base, what writes the folder, and the calls of `encode`."""
    from sentence_transformers import models as m

    plain: list[dict[str, Any]] = [{}]
    query: list[dict[str, Any]] = [{}, {"prompt_name": "query"}, {"prompt": "river "}]
    modes = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
    return [
        *((mode, "bert", _saved(_pooling(mode)), plain) for mode in modes),
        ("normalized", "bert", _saved(_pooling("cls"), m.Normalize(), prompts=PROMPTS), query),
        ("several", "bert", _saved(_pooling(("mean", "cls", "max"))), plain),
        (
            "dense",
            "bert",
            _saved(_pooling(tuple(modes)), _dense(72, 20), m.Normalize(), _dense(20, 9, "GELU")),
            plain,
        ),
        ("residual", "bert", _saved(_pooling("mean"), *_residual()), plain),
        ("layer_norm", "bert", _saved(_pooling("mean"), m.Dropout(0.3), _layer_norm()), plain),
        (
            "default_prompt",
            "bert",
            _saved(
                _pooling("mean"),
                m.Normalize(),
                prompts=PROMPTS,
                default_prompt_name="other",
                truncate_dim=5,
            ),
            [*query, {"prompt": ""}, {"normalize_embeddings": True}],
        ),
        *(
            (
                f"without_prompt_{mode}",
                "bert",
                _saved(_pooling(mode, include_prompt=False), prompts=PROMPTS),
                query,
            )
            for mode in ("mean", "cls", "weightedmean", "max", "lasttoken")
        ),
        (
            "without_prompt_several",
            "qwen3",
            _saved(_pooling(("cls", "mean", "lasttoken"), include_prompt=False), prompts=PROMPTS),
            query,
        ),
        ("last_of_left", "qwen3", _saved(_pooling("lasttoken"), m.Normalize()), plain),
        ("short", "bert", _saved(_pooling("mean"), m.Normalize(), max_seq_length=20),
         [{}, {"texts": LONG}]),
        ("lower_case", "cased", _old(max_seq_length=20, do_lower_case=True), plain),
        ("old", "bert", _old(max_seq_length=20), [{}, {"texts": LONG}]),
        ("old_pickled", "bert", _old(dense=True), plain),
        ("old_lower_folder", "bert", _old(folder="0_Transformer"), plain),
        ("t5", "t5", _saved(_pooling("mean"), _dense(12, 8, "Identity"), m.Normalize()), plain),
    ]  # fmt: skip


def _pooling(mode: Any, include_prompt: bool = True) -> Any:
    from sentence_transformers import models

    return models.Pooling(12, mode, include_prompt=include_prompt)


def _dense(inputs: int, outputs: int, activation: str = "Tanh", residual: bool = False) -> Any:
    import torch
    from sentence_transformers import models

    torch.manual_seed(inputs)
    function = getattr(torch.nn, activation)()
    bias = activation == "Tanh"
    return models.Dense(inputs, outputs, bias, function, use_residual=residual)


def _residual() -> list[Any]:
    return [_dense(12, 12, residual=True), _dense(12, 7, "ReLU", residual=True)]


def _layer_norm() -> Any:
    import torch
    from sentence_transformers import models

    module = models.LayerNorm(12)
    with torch.no_grad():
        module.norm.weight.copy_(torch.linspace(0.5, 2, 12))
        module.norm.bias.copy_(torch.linspace(-1, 1, 12))
    return module


def _saved(*modules: Any, max_seq_length: int | None = None, **options: Any) -> Any:
    """A folder as `save_pretrained` writes it."""

    def write(base: Path, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer, models

        first = models.Transformer(str(base), max_seq_length=max_seq_length)
        model = SentenceTransformer(modules=[first, *modules], device="cpu", **options)
        model.save_pretrained(str(folder), create_model_card=False)

    return write


def _old(folder: str = "", dense: bool = False, **settings: Any) -> Any:
    """A folder as versions 0 to 2 wrote it."""

    def write(base: Path, place: Path) -> None:
        import torch

        shutil.copytree(base, place / folder)
        kinds = [("Transformer", folder), ("Pooling", "1_Pooling")]
        kinds += [("Dense", "2_Dense")] if dense else [("Normalize", "2_Normalize")]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"{OLD}.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ]
        name = "sentence_distilbert_config.json" if folder else "sentence_bert_config.json"
        _write(place / folder / name, {"max_seq_length": 40, "do_lower_case": False, **settings})
        _write(place / "modules.json", modules)
        pooling: dict[str, Any] = {"word_embedding_dimension": 12}
        for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"):
            pooling[f"pooling_mode_{mode}"] = mode == "mean_tokens"
        _write(place / "1_Pooling/config.json", pooling)
        if dense:
            activation = "torch.nn.modules.activation.Tanh"
            shape = {"in_features": 12, "out_features": 6, "bias": True}
            _write(place / "2_Dense/config.json", {**shape, "activation_function": activation})
            torch.save(_dense(12, 6).state_dict(), place / "2_Dense/pytorch_model.bin")

    return write


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    make()
