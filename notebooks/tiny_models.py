"""Tiny models that the notebooks make in some seconds, since they download nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd
import torch
from tokenizers import BertWordPieceTokenizer

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")  # nothing here needs ipywidgets
    import transformers

# The tokens that the models read at once.
WINDOW = 128


def train_topics(folder: str, rows: pd.DataFrame, epochs: int = 10) -> None:
    """Train a classifier that tells a text's topic, and save it; once."""
    if Path(folder, "model.safetensors").exists():
        return
    tokenizer = _make_tokenizer(folder, rows["text"])
    topics = sorted(rows["topic"].unique())
    model = transformers.BertForSequenceClassification(
        _make_config(tokenizer, id2label=dict(enumerate(topics)))
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads wait for each other
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(20):
            some = rows.iloc[batch.tolist()]
            inputs = tokenizer(
                some["text"].tolist(), padding=True, truncation=True, return_tensors="pt"
            )
            labels = torch.tensor([topics.index(topic) for topic in some["topic"]])
            loss = model(**inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)


def make_reader(folder: str, texts: pd.Series) -> None:
    """Save a model that answers questions, with random weights: its answers mean nothing."""
    if Path(folder, "model.safetensors").exists():
        return
    config = _make_config(_make_tokenizer(folder, texts), initializer_range=1.0)
    transformers.BertForQuestionAnswering(config).eval().save_pretrained(folder)


def _make_tokenizer(folder: str, texts: pd.Series) -> transformers.BertTokenizer:
    Path(folder).mkdir(parents=True, exist_ok=True)
    words = BertWordPieceTokenizer()
    words.train_from_iterator(texts, vocab_size=2000, show_progress=False)
    words.save_model(folder)
    tokenizer = transformers.BertTokenizer(f"{folder}/vocab.txt", model_max_length=WINDOW)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _make_config(tokenizer: transformers.BertTokenizer, **more: object) -> transformers.BertConfig:
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    return transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **more,
    )
