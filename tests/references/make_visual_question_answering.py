"""Answers for visual-question-answering, by a model that classifies and one that generates."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from tests.references import answers, more_models, pictures
from tests.references.make_image_to_text import blip_config, blip_eyes
from tests.support import tiny

QUESTIONS = ["the mill ?", "a red stone wheel or a blue cart ?", "日本 ?", tiny.sentence(40, 9)]
LABELS = ["yes", "no", "red", "two", "a mill", "grün"]


def make() -> None:
    pictures.make()
    models()
    answers.write("visual-question-answering", [*asked(), *errors()])


def models() -> None:
    torch.manual_seed(17)
    words = tiny.tokenizer(32)
    config = transformers.ViltConfig(
        vocab_size=len(words), type_vocab_size=2, modality_type_vocab_size=2, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32,
        patch_size=8, max_position_embeddings=40, id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )  # fmt: skip
    vilt = more_models.spread(transformers.ViltForQuestionAnswering(config), 0.5)
    eyes = transformers.ViltImageProcessor(size={"shortest_edge": 24}, size_divisor=8)
    more_models.save("vilt", vilt, words, eyes)

    pieces = tiny.tokenizer(32)
    pieces.model_input_names = ["input_ids", "attention_mask"]
    blip = transformers.BlipForQuestionAnswering(blip_config(len(pieces)))
    more_models.save("blip_vqa", more_models.spread(blip, 0.5), pieces, blip_eyes())


def asked() -> list[dict[str, Any]]:
    images = pictures.NAMES
    pairs = [{"image": images[i], "question": QUESTIONS[i % 3]} for i in range(len(images))]
    long = {"image": images[2], "question": QUESTIONS[3]}
    short = {"max_new_tokens": 8}
    return [
        {"model": "vilt", "input": pairs},
        {"model": "vilt", "input": pairs, "called": {"top_k": 1}},
        {"model": "vilt", "input": pairs, "made": {"top_k": 2}},
        {"model": "vilt", "input": pairs, "called": {"top_k": 50, "batch_size": 1}},
        {"model": "vilt", "input": pairs[0], "task": "vqa", "called": {"top_k": 3}},
        {"model": "vilt", "input": long, "called": {"truncation": True}},
        {"model": "vilt", "input": pairs[1], "called": {"padding": "max_length", "timeout": 2.0}},
        {"model": "vilt", "input": images[0], "called": {"question": QUESTIONS[0]}},
        {"model": "vilt", "input": images[:2], "called": {"question": QUESTIONS[0]}},
        {"model": "vilt", "input": images[0], "called": {"question": QUESTIONS[:2]}},
        {"model": "vilt", "input": images[:3], "called": {"question": QUESTIONS[:2]}},
        {"model": "vilt", "input": pairs[0], "called": {"nonsense": 1}},
        {"model": "vilt", "input": []},
        {"model": "blip_vqa", "input": pairs, "made": short},
        {"model": "blip_vqa", "input": pairs, "made": {**short, "num_beams": 3}},
        {"model": "blip_vqa", "input": pairs, "made": short, "called": {"top_k": 1}},
        {"model": "blip_vqa", "input": pairs, "made": {**short, "num_beams": 2, "top_k": 2}},
        {"model": "blip_vqa", "input": long, "made": short, "called": {"truncation": True}},
        {"model": "blip_vqa", "input": pairs[0], "called": {"max_new_tokens": 3}},
    ]


def errors() -> list[dict[str, Any]]:
    pair = {"image": "wide.png", "question": "red ?"}
    return [
        {"model": "vilt", "input": pair, "called": {"top_k": "two"}},
        {"model": "vilt", "input": {"image": "wide.png"}},
        {"model": "vilt", "input": "wide.png"},
        {"model": "vilt", "input": {"image": "no such file", "question": "red ?"}},
        {"model": "vilt", "input": {"image": "tall.png", "question": QUESTIONS[3] * 2}},
    ]


if __name__ == "__main__":
    make()
