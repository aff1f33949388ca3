"""Write folders of static embeddings and the vectors that their libraries give.

pip install 'model2vec==0.10.0' 'sentence-transformers==6.2.0'
python -m tests.references.make_static_embeddings
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

HERE = Path(__file__).parent / "static_embeddings"
WORDS = [f"{a}{b}" for a in "bdfgklmnpst" for b in ("a", "e", "in", "orn")]
# A word beyond the vocabulary is unknown; the third text and the fourth are longer than a limit.
TEXTS = [
    "ba de fin",
    "korn zebra la",
    " ".join(WORDS),
    " ".join(WORDS[:4]) + " " + "x" * 200 + " ma",
    "",
    "zebra",
    "  ba   de\tfin ",
]
# How many tokens one call may have, beside the folder's own limit.
OPTIONS = ({}, {"normalize": False}, {"normalize": True, "max_length": 3})


def make_tokenizer() -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def main() -> None:
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        StaticEmbedding,
    )

    shutil.rmtree(HERE, ignore_errors=True)
    rng, size, width = np.random.default_rng(0), len(WORDS) + 1, 5
    table = rng.standard_normal((size, width)).astype(np.float32)
    weights = rng.random(size).astype(np.float32)
    mapping = rng.integers(0, 9, size)
    named = {"model_type": "model2vec", "architectures": ["StaticModel"]}
    models2vec = {
        "model2vec": StaticModel(table, make_tokenizer(), config=named, normalize=True),
        "model2vec_quantized": StaticModel(
            table[:9], make_tokenizer(), weights=weights, token_mapping=mapping, max_length=6
        ),
        "model2vec_int8": StaticModel((table * 40).astype(np.int8), make_tokenizer(), max_length=4),
    }
    vectors: dict[str, list[dict[str, object]]] = {}
    for name, model in models2vec.items():
        model.save_pretrained(HERE / name)
        vectors[name] = [
            {"options": options, "vectors": model.encode(TEXTS, **options).tolist()}
            for options in OPTIONS
        ]
    # A folder of model2vec as older versions left it.
    (HERE / "model2vec/modules.json").unlink()
    static = StaticEmbedding(make_tokenizer(), embedding_weights=table)
    dense = Dense(width, 3)
    module = SentenceTransformer(
        modules=[static, dense, Normalize()], prompts={"query": "ba korn "}, device="cpu"
    )
    module.save(str(HERE / "module"))
    vectors["module"] = [
        {"options": options, "vectors": module.encode(TEXTS, **options).tolist()}
        for options in ({}, {"prompt_name": "query"})
    ]
    # As earlier versions of sentence-transformers saved it: in a folder, without config.json.
    lower = HERE / "module_below"
    shutil.copytree(HERE / "module", lower)
    modules = json.loads((lower / "modules.json").read_text())
    modules[0]["path"] = "0_StaticEmbedding"
    (lower / "modules.json").write_text(json.dumps(modules))
    (lower / "0_StaticEmbedding").mkdir()
    for file in ("model.safetensors", "tokenizer.json"):
        (lower / file).rename(lower / "0_StaticEmbedding" / file)
    again = SentenceTransformer(str(lower), device="cpu")
    vectors["module_below"] = [{"options": {}, "vectors": again.encode(TEXTS).tolist()}]
    for readme in HERE.rglob("README.md"):
        readme.unlink()
    (HERE / "vectors.json").write_text(json.dumps(vectors))


if __name__ == "__main__":
    main()
