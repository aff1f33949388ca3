"""Pipelines as users write them, after transformers' guide to a custom pipeline."""

from __future__ import annotations

import torch
from transformers import Pipeline, TextClassificationPipeline, TextGenerationPipeline
from transformers.pipelines.base import ChunkPipeline


class PairPipeline(Pipeline):
    """Classifies a text beside a second one, and shows the logits."""

    def _sanitize_parameters(self, **kwargs):
        before = {}
        if "second_text" in kwargs:
            before["second_text"] = kwargs["second_text"]
        return before, {}, {}

    def preprocess(self, text, second_text=None):
        return self.tokenizer(text, text_pair=second_text, return_tensors="pt")

    def _forward(self, model_inputs):
        return self.model(**model_inputs)

    def postprocess(self, model_outputs):
        logits = model_outputs.logits[0].float()
        score, best = torch.softmax(logits, -1).max(-1)
        label = self.model.config.id2label[int(best)]
        return {"label": label, "score": score.item(), "logits": logits.tolist()}


class FirstWord(TextClassificationPipeline):
    def preprocess(self, inputs, **tokenizer_kwargs):
        return super().preprocess(inputs.split()[0], **tokenizer_kwargs)


class Softer(TextClassificationPipeline):
    def _forward(self, model_inputs):
        outputs = super()._forward(model_inputs)
        outputs["logits"] = outputs["logits"] / 4
        return outputs


class Louder(TextClassificationPipeline):
    def postprocess(self, model_outputs, **kwargs):
        answer = super().postprocess(model_outputs, **kwargs)
        if isinstance(answer, dict):
            return {**answer, "label": answer["label"].upper()}
        return [{**one, "label": one["label"].upper()} for one in answer]


class Words(ChunkPipeline):
    """Scores each word by itself: a chunk for each."""

    def _sanitize_parameters(self, **kwargs):
        return {}, {}, {}

    def preprocess(self, text):
        words = text.split()
        for i, word in enumerate(words):
            inputs = self.tokenizer(word, return_tensors="pt")
            yield {"word": word, "is_last": i == len(words) - 1, **inputs}

    def _forward(self, model_inputs):
        word, is_last = model_inputs.pop("word"), model_inputs.pop("is_last")
        return {"word": word, "is_last": is_last, "logits": self.model(**model_inputs).logits}

    def postprocess(self, model_outputs):
        best = max(float(output["logits"].max()) for output in model_outputs)
        return {"words": [output["word"] for output in model_outputs], "best": best}


class Moody(FirstWord):
    """Answers differently to some texts."""

    def preprocess(self, inputs, **tokenizer_kwargs):
        return {"text": inputs, **super().preprocess(inputs, **tokenizer_kwargs)}

    def _forward(self, model_inputs):
        return {"text": model_inputs.pop("text"), **super()._forward(model_inputs)}

    def postprocess(self, model_outputs, **kwargs):
        text = model_outputs["text"]
        if text == "shouts":
            raise RuntimeError("no!")
        counts = {"words": len(text.split())}
        return {"many": {"words": "many"}, "more": {**counts, "more": 1}}.get(text, counts)


class NoPipeline:
    pass


class Unloadable(TextClassificationPipeline):
    def __init__(self, *args, **kwargs):
        raise ValueError("no such licence")


class Unreadable(TextClassificationPipeline):
    def preprocess(self, inputs, **keywords):
        raise ValueError("no word")


class Unanswered(TextClassificationPipeline):
    def _forward(self, model_inputs, **keywords):
        raise ValueError("no layer is left")


class Steady(FirstWord):
    """Says that equal texts have equal answers."""

    repeats = True


class Scored(TextGenerationPipeline):
    """Hands a number to its answers, under a name that `generate` uses, too."""

    def _forward(self, model_inputs, **kwargs):
        outputs = super()._forward(model_inputs, **kwargs)
        return {**outputs, "scores": outputs["input_ids"].sum(-1, keepdim=True)}

    def postprocess(self, model_outputs, **kwargs):
        (answer,) = super().postprocess(model_outputs, **kwargs)
        return [{**answer, "score": float(model_outputs["scores"])}]
