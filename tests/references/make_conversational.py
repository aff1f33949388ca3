"""Replies to conversations: those of text-generation, which took over from conversational."""

from __future__ import annotations

from typing import Any

from tests.references import answers, more_models

GREEDY = {"do_sample": False, "max_new_tokens": 16}


def make() -> None:
    models()
    answers.write("conversational", cases(), messages, by="text-generation")


def models() -> None:
    words = more_models.byte_tokenizer(chat_template=more_models.TEMPLATE)
    more_models.save("llama", more_models.llama(len(words)), words)


def messages(answer: Any) -> Any:
    """The conversation with its reply, or a list of them."""
    if isinstance(answer[0], list):
        return [messages(item) for item in answer]
    return answer[0]["generated_text"]


def cases() -> list[dict[str, Any]]:
    def said(*texts: str) -> list[dict[str, str]]:
        return [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)
        ]

    first, system = said("the mill by the river ?"), [{"role": "system", "content": "be quick"}]
    chats = [
        first,
        said("Anna , is it a horse ?", "it is not .", "日本語 und grün , Mary ?"),
        [*system, *said("a red cart and a blue wheel !")],
        said("is the bread warm ?", "the bread was"),
    ]
    return [
        {"model": "llama", "input": chats, "called": GREEDY},
        {"model": "llama", "input": chats, "made": GREEDY},
        {"model": "llama", "input": first, "called": {"do_sample": False}},
        {"model": "llama", "input": chats[1], "called": {**GREEDY, "num_beams": 3}},
        {"model": "llama", "input": chats[:2], "seed": 3, "called": {"max_new_tokens": 12}},
        {"model": "llama", "input": chats[1], "seed": 4, "made": {"temperature": 1.5, "top_k": 5},
         "called": {"max_new_tokens": 12}},
        {"model": "llama", "input": chats[3],
         "called": {**GREEDY, "continue_final_message": False}},
        {"model": "llama", "input": chats[:3],
         "called": {**GREEDY, "clean_up_tokenization_spaces": False}},
        {"model": "llama", "input": chats[:3], "called": {**GREEDY, "stop_sequence": " bad"}},
        {"model": "llama", "input": chats[:3], "called": {**GREEDY, "batch_size": 1}},
        {"model": "llama", "input": first, "called": {**GREEDY, "min_new_tokens": 12}},
        {"model": "llama", "input": [{"role": "user"}]},
        {"model": "llama", "input": first, "called": {"nonsense": 3}},
    ]  # fmt: skip


if __name__ == "__main__":
    make()
