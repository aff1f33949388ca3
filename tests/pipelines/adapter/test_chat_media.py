"""Which prompts with media are whole, and which are the text of a message."""

from __future__ import annotations

import pytest
import transformers
from pipemill.pipelines.adapter.chat_media import build_chat
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
