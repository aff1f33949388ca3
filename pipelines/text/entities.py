"""The entities of a text from its tokens' logits, computed for all tokens at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .probabilities import compute_softmax

if TYPE_CHECKING:
    from transformers import Pipeline

Entity = dict[str, Any]


def find_entities(pipeline: Pipeline, outputs: list[Any], **keywords: Any) -> list[Entity]:
    """Return what the token-classification pipeline's `postprocess` returns for a text.

    That makes a dictionary for each token, and decodes each group of tokens before it drops the
    groups of ignored labels, which most are: some 30 microseconds a token. What this function does
    not know, the pipeline does: windows of a long text, given words, tokenizers without offsets.

    Args:
        pipeline: a TokenClassificationPipeline of transformers.
        outputs: what its `_forward` returned for each window of the text.
        keywords: those of `postprocess`.

    Raises:
        KeyError: `id2label` does not name a label.
    """
    output = outputs[0]
    offsets = output.get("offset_mapping")
    if len(outputs) > 1 or output.get("word_ids") is not None or not hasattr(offsets, "numpy"):
        return pipeline.postprocess(outputs, **keywords)
    scores = compute_softmax(output["logits"][0].numpy())
    if np.isnan(scores).any():  # they have no order
        return pipeline.postprocess(outputs, **keywords)
    tokens = _Tokens(pipeline, output, scores)
    strategy = keywords.get("aggregation_strategy") or "none"
    strategy = getattr(strategy, "value", strategy)
    ignored = keywords.get("ignore_labels")
    return tokens.aggregate(strategy, ["O"] if ignored is None else ignored)


class _Tokens:
    """The tokens of a text, without special ones.

    Attributes:
        index: their places among all tokens, shape (tokens,).
        scores: of each label, shape (tokens, labels).
        spans: the first character and the one after the last, shape (tokens, 2).
    """

    def __init__(self, pipeline: Any, output: Any, scores: np.ndarray) -> None:
        self.pipeline, self.tokenizer = pipeline, pipeline.tokenizer
        self.labels = pipeline.model.config.id2label
        self.text = output["sentence"]
        self.index = np.flatnonzero(output["special_tokens_mask"][0].numpy() == 0)
        self.ids = output["input_ids"][0].numpy()[self.index]
        self.scores = scores[self.index]
        self.spans = output["offset_mapping"][0].numpy()[self.index]

    def aggregate(self, strategy: str, ignored: list[str]) -> list[Entity]:
        """Return the entities whose labels are not ignored."""
        if not len(self.index):
            return []
        if strategy in ("none", "simple"):
            starts = np.arange(len(self.index))
            best = self.scores.argmax(axis=-1)
            scores = self.scores[starts, best]
        else:
            starts = np.flatnonzero(~self._find_subwords())
            best, scores = self._label_words(strategy, starts)
        names = [self.labels[label] for label in best.tolist()]
        if strategy == "none":
            kept = [i for i, name in enumerate(names) if name not in ignored]
            return [self._make_entity(i, names[i], scores[i]) for i in kept]
        return self._group(names, scores, starts, ignored, strategy != "simple")

    def _make_entity(self, i: int, name: str, score: np.floating[Any]) -> Entity:
        (start, end), (word,) = self.spans[i].tolist(), self._name_tokens(i, i + 1)
        return {
            "entity": name,
            "score": score,
            "index": int(self.index[i]),
            "word": word,
            "start": start,
            "end": end,
        }

    def _group(
        self,
        names: list[str],
        scores: np.ndarray,
        starts: np.ndarray,
        ignored: list[str],
        by_word: bool,
    ) -> list[Entity]:
        """Join neighbours of one label, which may begin with B- and I-.

        Args:
            names: the label of each token, or word.
            scores: its score.
            starts: its first token.
            ignored: labels that are left out.
            by_word: whether these are words.
        """
        tags = {name: self.pipeline.get_tag(name) for name in set(names)}
        pairs = [tags[name] for name in names]
        begins = [
            i
            for i, (prefix, tag) in enumerate(pairs)
            if i == 0 or prefix == "B" or tag != pairs[i - 1][1]
        ]
        bounds = np.append(starts, len(self.index))  # each ends where the next one starts
        entities = []
        for first, after in zip(begins, [*begins[1:], len(names)], strict=True):
            group = names[first].split("-", 1)[-1]
            if group in ignored:
                continue
            cuts = bounds[first : after + 1].tolist()
            parts = self._name_tokens(cuts[0], cuts[-1])
            if by_word:
                at = [cut - cuts[0] for cut in cuts]
                parts = [self._join(parts[a:b]) for a, b in zip(at, at[1:], strict=False)]
            mean = scores[first:after].sum() / (after - first)
            entities.append(
                {
                    "entity_group": group,
                    "score": scores.dtype.type(mean),
                    "word": self._join(parts),
                    "start": int(self.spans[cuts[0], 0]),
                    "end": int(self.spans[cuts[-1] - 1, 1]),
                }
            )
        return entities

    def _label_words(self, strategy: str, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the label of each word, and its score.

        starts: the first token of each word.
        """
        cuts = [*starts.tolist(), len(self.scores)]
        words = list(zip(cuts, cuts[1:], strict=False))
        scores = self.scores[starts]
        if strategy == "max":
            highest = self.scores.max(axis=-1)
            scores = self.scores[[a + int(highest[a:b].argmax()) for a, b in words]]
        elif strategy == "average":
            for word, (a, b) in enumerate(words):
                if b - a > 1:  # `reduceat` would round otherwise
                    scores[word] = self.scores[a:b].sum(axis=0) / np.float32(b - a)
        best = scores.argmax(axis=-1)
        return best, scores[np.arange(len(best)), best]

    def _find_subwords(self) -> np.ndarray:
        """Tell of each token whether it continues the word of the one before, shape (tokens,)."""
        model = getattr(getattr(self.tokenizer, "_tokenizer", None), "model", None)
        if getattr(model, "continuing_subword_prefix", None):
            names = self.tokenizer.convert_ids_to_tokens(self.ids.tolist())
            found = np.array(list(map(len, names)), int) != self._measure_spans()
        else:  # a heuristic: the character before it is no space, nor is its first one
            found = np.array(
                [a > 0 and " " not in self.text[a - 1 : a + 1] for a in self.spans[:, 0].tolist()],
                bool,
            )
        found &= self.ids != self._unknown
        found[:1] = False
        return found

    def _measure_spans(self) -> np.ndarray:
        starts, ends = np.clip(self.spans, 0, len(self.text)).T
        return np.maximum(ends - starts, 0)

    @property
    def _unknown(self) -> int:
        known = self.tokenizer.unk_token_id
        return -1 if known is None else known

    def _name_tokens(self, first: int, after: int) -> list[str]:
        """Return tokens as the vocabulary names them; unknown ones as the text has them."""
        ids = self.ids[first:after].tolist()
        names = self.tokenizer.convert_ids_to_tokens(ids)
        for i, id in enumerate(ids, start=first):
            if id == self._unknown:
                start, end = self.spans[i].tolist()
                names[i - first] = self.text[start:end]
        return names

    def _join(self, parts: list[str]) -> str:
        return self.tokenizer.convert_tokens_to_string(parts)
