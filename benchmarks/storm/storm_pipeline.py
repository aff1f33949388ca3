"""A text classifier some of whose rows raise, and some of which end their process."""

from __future__ import annotations

import os
import signal
from typing import Any

import transformers


class StormPipeline(transformers.TextClassificationPipeline):
    def preprocess(self, inputs: Any, **keywords: Any) -> Any:
        text = inputs if isinstance(inputs, str) else inputs["text"]
        if text == "bad":
            raise ValueError("this row is bad")
        if text == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().preprocess(inputs, **keywords)
