"""Tiny random encoders of many kinds, each with a tokenizer as in a pipeline."""

from __future__ import annotations

import copy
import inspect
from contextlib import nullcontext
from functools import cache

import numpy as np
import pyarrow as pa
from pipemill.actors import task
from pipemill.pipelines.engines.encoder import Encoder, make_encoder

from tests.support import tiny

LIMIT = 96  # positions of the models that have a table of them
WINDOW = 16  # of ModernBERT's local layers
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": LIMIT,
}
_DECODER = {"bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
# Fields of the kind's config beside or over the usual ones.
KINDS = {
    "Bert": {},
    "Roberta": {"max_position_embeddings": LIMIT + 1},
    "XLMRoberta": {"max_position_embeddings": LIMIT + 2, "pad_token_id": 1, "type_vocab_size": 2},
    "Camembert": {"max_position_embeddings": LIMIT + 2, "pad_token_id": 1},
    "Electra": {"embedding_size": 16},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37},
    "ModernBert": {"global_attn_every_n_layers": 2, "local_attention": WINDOW},
    "EuroBert": {},
    "NomicBert": {},
    "DPR": {},
    "Albert": {"embedding_size": 16},
    "Qwen2": {"num_key_value_heads": 2},
    "MPNet": {"max_position_embeddings": LIMIT + 1},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "MobileBert": {
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "normalization_type": "layer_norm",
    },
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, **_DECODER},
    "Bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 37}
    | {"decoder_ffn_dim": 37, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    | _DECODER,
}


class Loaded:
    """As much of a `transformers.Pipeline` as an encoder needs."""

    device_placement = staticmethod(nullcontext)

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.device = model, tokenizer, model.device


@cache
def _built(kind: str, head: str, settings: tuple):
    import torch
    import transformers

    torch.manual_seed(0)
    words = tiny.tokenizer(LIMIT)
    given = {**_SHAPE, "pad_token_id": 0, "num_labels": 3, **KINDS[kind]}
    given |= {name: dict(v) if isinstance(v, tuple) else v for name, v in settings}
    spread = {"initializer_range": 0.5, "init_std": 0.5, "initializer_factor": 1.0}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 3)
    given = {"vocab_size": len(words), **spread, **special, **given}
    config = getattr(transformers, f"{kind}Config")(**given)
    return getattr(transformers, f"{kind}{head}")(config).eval()


def loaded(kind: str, head: str = "Model", dtype: str = "float32", **settings) -> Loaded:
    """A new model, always with the same weights."""
    import torch

    model = copy.deepcopy(_built(kind, head, tuple(settings.items())))
    model = model.to(getattr(torch, dtype))
    return Loaded(model, tiny.tokenizer(LIMIT))


def encoder(pipeline: Loaded, reads: str | None = None) -> Encoder:
    """The pipeline's model with the engine that suits it."""
    whole = type(pipeline.model).__name__.endswith("SequenceClassification")
    loaded = task.Loaded(pipeline=pipeline, parameters={})
    return make_encoder(loaded, reads or ("first" if whole else "all"))


def sequences(pipeline: Loaded, lengths: list[int], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random tokens, and for each whether it is of the second text."""
    rng = np.random.default_rng(seed)
    types = min(getattr(pipeline.model.config, "type_vocab_size", None) or 1, 2)
    known = pipeline.model.get_input_embeddings().num_embeddings
    made = []
    for length in lengths:
        ids = rng.integers(4, known, length)
        ids[rng.random(length) < 0.2] = 1  # unknown words: to some models the padding's token
        ids[-1] = 3  # where encoder-decoders look
        made.append({"input_ids": ids, "token_type_ids": rng.integers(types, size=length)})
    return made


def chunks(made: list[dict[str, np.ndarray]]) -> pa.StructArray:
    columns = {"size": pa.array([len(one["input_ids"]) for one in made])}
    for name in made[0]:
        columns[name] = pa.array([one[name].astype(np.int32) for one in made])
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def one_by_one(model, made: list[dict[str, np.ndarray]], whole: bool) -> np.ndarray:
    """What the model says to each sequence alone."""
    import torch

    answers = []
    for one in made:
        inputs = {name: torch.from_numpy(values)[None] for name, values in one.items()}
        if "token_type_ids" not in inspect.signature(model.forward).parameters:
            inputs.pop("token_type_ids")
        with torch.inference_mode():
            output = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))[0]
        answers.append(output if whole else output[0])
    return torch.cat(answers).float().numpy()
