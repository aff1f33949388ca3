"""A tiny random TAPAS, which answers questions about tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support import tiny


def tapas(folder: Path) -> None:
    import torch
    from transformers import TapasConfig, TapasForQuestionAnswering, TapasTokenizer

    folder.mkdir(parents=True)
    letters = sorted({c for w in tiny.WORDS for c in w.lower()} | set("0123456789?.-"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]"]
    whole = sorted({w.lower() for w in tiny.WORDS[::2]})
    pieces = dict.fromkeys([*special, *letters, *(f"##{c}" for c in letters), *whole])
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n")
    TapasTokenizer(str(vocabulary), model_max_length=96).save_pretrained(folder)
    config = TapasConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=96,
        type_vocab_sizes=[3, 64, 64, 2, 64, 64, 10],
        num_aggregation_labels=4,
        aggregation_labels={0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
        no_aggregation_label_index=0,
        average_logits_per_cell=False,
        select_one_column=True,
    )
    torch.manual_seed(7)  # before the model is made, too: its vectors keep their first weights
    model = TapasForQuestionAnswering(config).eval()
    torch.manual_seed(4)
    for name, weights in model.named_parameters():
        if weights.dim() > 1:
            weights.data.normal_(std=2.0 if "aggregation" in name else 0.3)
    model.output_bias.data.fill_(1.0)  # some cells are chosen, and not all
    model.save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {"table-question-answering": tapas}
