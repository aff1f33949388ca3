"""Which prompts with media are whole, and which are the text of a message."""

from __future__ import annotations

from base64 import b64decode
from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from pipemill.pipelines.adapter.chat_media import build_chat, encode_recordings, leave_media
from pipemill.pipelines.adapter.chat_text import check_chat_template
from pipemill.pipelines.media import decode_audio
from tokenizers import AddedToken


@pytest.mark.parametrize("mark", ["]<]image[>[", "|SPEAKER|", AddedToken("<seen>")], ids=str)
def test_a_model_may_have_any_mark_for_an_image(models, mark):
    """MiniMax, Fuyu and InstructBLIP have these."""
    processor = transformers.AutoProcessor.from_pretrained(models["image-text-to-text"])
    processor.image_token = mark
    written = getattr(mark, "content", mark)
    assert build_chat({"image": b"", "text": f"a {written} of a mill"}, processor) is None
    # The number of that token is no mark.
    assert build_chat({"image": b"", "text": f"in {processor.image_token_id}"}, processor)


class MistralCommonBackend:
    """Stand in for mistral-common's tokenizer: it writes chats without a template."""


def test_a_tokenizer_of_mistral_reads_recordings_as_files():
    """It takes no samples, as Voxtral's processor then says."""
    processor = SimpleNamespace(
        chat_template=None,
        tokenizer=MistralCommonBackend(),
        feature_extractor=SimpleNamespace(sampling_rate=16000),
    )
    check_chat_template(SimpleNamespace(processor=processor), {})
    samples = np.linspace(-1, 1, 800, dtype=np.float32)
    chat = build_chat({"audio": samples, "text": "a mill"}, processor)
    encode_recordings(chat, processor)
    sound, text = chat[0]["content"]
    assert sound.keys() == {"type", "base64"}
    np.testing.assert_array_equal(decode_audio(b64decode(sound["base64"]), 16000), samples)
    assert text == {"type": "text", "text": "a mill"}
    leave_media(chat)
    assert sound == {"type": "audio"}
