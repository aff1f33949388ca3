"""Answers for text2text-generation, summarization and translation."""

from __future__ import annotations

from typing import Any

from tests.references import answers, more_models
from tests.support import tiny

TEXTS = [
    "the mill by the river",
    "Anna , Peter and Mary : a stone wheel",
    "日本語 und grün",
    tiny.sentence(30, 4),
    "",
]
SHORT = {"max_new_tokens": 8}


def make() -> None:
    models()
    answers.write("text2text-generation", [*generation(), *errors()], shown)
    answers.write("summarization", summaries(), shown)
    answers.write("translation", translations(), shown)


def models() -> None:
    words = more_models.t5_tokenizer()
    old_settings = {
        "summarization": {"prefix": "mill : ", "num_beams": 2, "min_length": 6, "max_length": 14},
        "translation_en_to_de": {"prefix": "to Berlin : ", "num_beams": 3, "length_penalty": 2.0},
    }
    t5 = more_models.t5(len(words), task_specific_params=old_settings, prefix="old ")
    more_models.save("t5", t5, words)
    bpe = more_models.byte_tokenizer()
    bart = more_models.bart("Bart", len(bpe), forced_eos_token_id=2)
    bart.generation_config.update(max_length=24, min_length=4, num_beams=2, no_repeat_ngram_size=2)
    more_models.save("bart", bart, bpe)
    more_models.copy_with("bart_old", "bart", transformers_version="4.26.0")
    codes = more_models.mbart_tokenizer()
    more_models.save("mbart", more_models.bart("MBart", len(codes), forced_eos_token_id=2), codes)


def shown(answer: Any) -> Any:
    if isinstance(answer, list):
        return [shown(item) for item in answer]
    return {k: v if isinstance(v, str) else v.tolist() for k, v in answer.items()}


def generation() -> list[dict[str, Any]]:
    both = [
        {"called": SHORT},
        {"called": {**SHORT, "num_beams": 1}},
        {"made": {"num_beams": 1, "max_new_tokens": 8}},
        {"made": {"num_beams": 1}, "called": {"max_length": 9, "max_new_tokens": None}},
        {"called": {**SHORT, "min_length": 7, "repetition_penalty": 1.7}},
        {"called": {**SHORT, "num_return_sequences": 3}},
        {"called": {**SHORT, "return_tensors": True}},
        {"called": {**SHORT, "return_tensors": False, "return_text": True}},
        {"called": {**SHORT, "clean_up_tokenization_spaces": True}},
        {"made": {"clean_up_tokenization_spaces": True}, "called": SHORT},
        {"called": {**SHORT, "truncation": True}},
        {"called": {**SHORT, "stop_sequence": "the"}},
        {"called": {"max_new_tokens": 10, "stop_sequence": "river stone"}},
        {"called": {**SHORT, "batch_size": 1}},
    ]
    cases = [{"model": model, "input": TEXTS, **case} for model in ("t5", "bart") for case in both]
    return [
        *cases,
        {"model": "t5", "input": TEXTS[0]},
        {"model": "bart", "input": TEXTS[:3]},
        {"model": "bart", "input": TEXTS[:3], "called": {"max_length": 9}},
        {"model": "bart_old", "input": TEXTS[:3]},
        {"model": "t5", "input": TEXTS[0], "called": {**SHORT, "num_return_sequences": 2}},
        {"model": "t5", "input": [TEXTS[:2]], "called": SHORT},
        {"model": "bart", "input": TEXTS, "called": {**SHORT, "do_sample": True}, "seed": 2},
        *(
            {"model": model, "input": TEXTS, "called": {"generation_config": SHORT, **called}}
            for model in ("bart", "bart_old")
            for called in ({}, {"num_beams": 3})
        ),
        {"model": "bart", "input": TEXTS, "called": {**SHORT, "stop_sequence": ".;"}},
        {"model": "t5", "input": []},
    ]


def errors() -> list[dict[str, Any]]:
    return [
        {"model": "t5", "input": 7},
        {"model": "t5", "input": [None]},
        {"model": "t5", "input": "the mill", "called": {"max_new_token": 3}},
        {"model": "t5", "input": "the mill", "called": {"num_beams": 2, "num_return_sequences": 3}},
        {"model": "t5", "input": "the mill", "called": {"max_new_tokens": 0}},
        {"model": "t5", "input": "the mill", "made": {"nonsense": 3}},
    ]


def summaries() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = [
        {"called": {"max_new_tokens": 10, "min_length": 3}},
        {"made": {"max_length": 16, "min_length": 8}},
        {"called": {"max_new_tokens": 10, "num_return_sequences": 2}},
        {"called": {"max_new_tokens": 10, "return_tensors": True}},
    ]
    models = ("t5", "bart", "bart_old")
    return [
        *({"model": model, "input": TEXTS[:4], **case} for model in models for case in cases),
        *({"model": model, "input": TEXTS[3]} for model in models[1:]),
        *({"model": model, "input": TEXTS[1], "called": {"max_length": 16}} for model in models),
    ]


def translations() -> list[dict[str, Any]]:
    german, french = {"src_lang": "en_XX", "tgt_lang": "de_DE"}, {"tgt_lang": "fr_XX"}
    named = {"task": "translation_en_XX_to_de_DE"}
    pair = {"task": "translation_en_to_de"}
    return [
        {"model": "t5", "input": TEXTS, **pair, "called": SHORT},
        {"model": "t5", "input": TEXTS[:1], **pair},
        {"model": "t5", "input": TEXTS[:2], "called": {**SHORT, "num_beams": 1}},
        {"model": "t5", "input": TEXTS, "task": "translation_en_to_fr", "called": SHORT},
        {"model": "t5", "input": TEXTS, "called": {**SHORT, **german}},
        {"model": "bart", "input": TEXTS, "called": SHORT},
        {"model": "mbart", "input": TEXTS, "called": {**SHORT, **german}},
        {"model": "mbart", "input": TEXTS, "called": {**SHORT, **german, **french}},
        {"model": "mbart", "input": TEXTS[:2], "made": german, "called": SHORT},
        {"model": "mbart", "input": TEXTS[:2], **pair, "called": {**SHORT, **german}},
        {"model": "mbart", "input": TEXTS[:2], **pair, "made": german, "called": SHORT},
        {"model": "mbart", "input": TEXTS[:2], "made": german, "called": {**SHORT, **french}},
        {"model": "mbart", "input": TEXTS, "called": {**SHORT, **german, "truncation": True}},
        {"model": "mbart", "input": TEXTS[:2], "called": {**SHORT, **french}},
        {"model": "mbart", "input": TEXTS[:2], "called": SHORT},
        {"model": "mbart", "input": TEXTS[:2], **named},
        {"model": "mbart", "input": TEXTS[:2], "task": "translation_en"},
    ]


if __name__ == "__main__":
    make()
