"""conversational: the next message of a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import GenerationConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from .generation_config import GeneratingPipeline

Message = dict[str, str]


class Conversation:
    """Messages, each with a `role` and a `content`; a text becomes the user's first message."""

    def __init__(self, messages: str | list[Message] | None = None) -> None:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        self.messages = [dict(message) for message in messages or ()]

    def add_message(self, message: Message) -> None:
        """Add a message. Raise ValueError for one without `role` and `content`."""
        _check_messages([message])
        self.messages.append(message)

    def add_user_input(self, text: str) -> None:
        """Add a message of the user."""
        self.add_message({"role": "user", "content": text})

    @property
    def generated_responses(self) -> list[str]:
        """The texts of the assistant's messages."""
        return [m["content"] for m in self.messages if m["role"] == "assistant"]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __getitem__(self, index: int) -> Message:
        return self.messages[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conversation) and self.messages == other.messages

    def __repr__(self) -> str:
        return f"Conversation({self.messages!r})"


class ConversationalPipeline(GeneratingPipeline):
    """Adds the assistant's reply to a conversation, as its last message.

    The reply is that of text-generation for the same chat: sampled at temperature 0.7, with at
    most 256 new tokens, unless the model's settings or the parameters of `generate` say otherwise.
    If a conversation ends with the assistant's message, that message is continued, unless
    `continue_final_message` says otherwise.

    Other parameters: `clean_up_tokenization_spaces` (True), `stop_sequence` (each of its tokens
    ends the reply), `tokenizer_encode_kwargs` (for `apply_chat_template`).
    Messages without `role` and `content` raise ValueError.
    """

    _default_generation_config = GenerationConfig(
        max_new_tokens=256, do_sample=True, temperature=0.7
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(
            [
                *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(),
                *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values(),
            ]
        )
        if not self.model.config.is_encoder_decoder:
            # In a batch, padding must not come between a conversation and its reply.
            self.tokenizer.padding_side = "left"

    def _sanitize_parameters(
        self,
        clean_up_tokenization_spaces: bool | None = None,
        continue_final_message: bool | None = None,
        stop_sequence: str | None = None,
        tokenizer_encode_kwargs: dict[str, Any] | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict, dict, dict]:
        if (generate_kwargs.get("num_return_sequences") or 1) > 1:
            raise ValueError(
                "num_return_sequences must be 1: a conversation continues with one reply; "
                "for several, use text-generation"
            )
        if stop_sequence is not None:
            stop = self.tokenizer.encode(stop_sequence, add_special_tokens=False)
            generate_kwargs["eos_token_id"] = stop
        before = {
            "continue_final_message": continue_final_message,
            "tokenizer_encode_kwargs": tokenizer_encode_kwargs,
        }
        after = {
            "continue_final_message": continue_final_message,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        return (
            {name: value for name, value in before.items() if value is not None},
            {**generate_kwargs, **self.assistants()},
            {name: value for name, value in after.items() if value is not None},
        )

    def __call__(self, conversations: Any, **kwargs: Any) -> Any:
        """Return the conversation with its reply, or a list of them for several.

        An object with `messages` is extended in place. A list of messages becomes a new
        `Conversation`.
        """
        if isinstance(conversations, list | tuple):
            if not conversations:
                return []
            one = isinstance(conversations[0], dict)
            inputs = (
                _to_conversation(conversations)
                if one
                else list(map(_to_conversation, conversations))
            )
        else:
            inputs = conversations
        answers = super().__call__(inputs, **kwargs)
        return answers[0] if isinstance(answers, list) and len(answers) == 1 else answers

    def preprocess(
        self,
        conversation: Any,
        continue_final_message: bool | None = None,
        tokenizer_encode_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        conversation = _to_conversation(conversation)
        continues = _continues_last_message(conversation, continue_final_message)
        encoded = self.tokenizer.apply_chat_template(
            conversation.messages,
            add_generation_prompt=not continues,
            continue_final_message=continues,
            return_dict=True,
            return_tensors="pt",
            **(tokenizer_encode_kwargs or {}),
        )
        return {**encoded, "conversation": conversation}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        inputs = dict(model_inputs)
        conversation = inputs.pop("conversation")
        inputs.pop("token_type_ids", None)
        return {
            "output_ids": self.generate(inputs, generate_kwargs),
            "input_ids": inputs["input_ids"],
            "conversation": conversation,
        }

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        continue_final_message: bool | None = None,
        clean_up_tokenization_spaces: bool = True,
    ) -> Any:
        text = self.decode(model_outputs["output_ids"][0], clean_up_tokenization_spaces)
        if not self.model.config.is_encoder_decoder:
            # Cut as text, as in 4.57: new tokens decoded alone may lose their first space.
            prompt = self.decode(model_outputs["input_ids"][0], clean_up_tokenization_spaces)
            text = text[len(prompt) :]
        conversation = model_outputs["conversation"]
        if _continues_last_message(conversation, continue_final_message):
            last = conversation.messages[-1]
            conversation.messages[-1] = {**last, "content": last["content"] + text}
        else:
            conversation.messages.append({"role": "assistant", "content": text})
        return conversation


def _continues_last_message(conversation: Any, wanted: bool | None) -> bool:
    return conversation.messages[-1]["role"] == "assistant" if wanted is None else wanted


def _to_conversation(messages: Any) -> Any:
    """Return an object with `messages` as it is, or a `Conversation` of a list of messages."""
    conversation = messages if hasattr(messages, "messages") else Conversation(messages)
    _check_messages(conversation.messages)
    return conversation


def _check_messages(messages: list[Message]) -> None:
    if not messages:
        raise ValueError("a conversation needs at least one message")
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise ValueError(f"a message needs a 'role' and a 'content'; this one is {message!r}")
