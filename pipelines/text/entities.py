"""The entities of texts from their tokens' logits, computed for all tokens at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .probabilities import compute_softmax
from .token_ranges import concatenate_ranges

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
    own = output["special_tokens_mask"][0].numpy() == 0
    tokens = PlacedTokens(
        texts=[output["sentence"]],
        numbers=np.zeros(np.count_nonzero(own), int),
        ids=output["input_ids"][0].numpy()[own],
        places=np.flatnonzero(own),
        spans=offsets[0].numpy().reshape(-1, 2)[own],
    )
    return list(EntityFinder(pipeline, keywords).find(tokens, scores[own]).list_entities())


@dataclass(frozen=True, kw_only=True)
class PlacedTokens:
    """The tokens of several texts without special ones, one text after the other.

    Attributes:
        texts: what they are tokens of.
        numbers: of each token's text, shape (tokens,).
        ids: shape (tokens,).
        places: of each among all tokens of its text, special ones too, shape (tokens,).
        spans: the first character and the one after the last, shape (tokens, 2).
    """

    texts: Sequence[str]
    numbers: np.ndarray
    ids: np.ndarray
    places: np.ndarray
    spans: np.ndarray

    @property
    def are_first(self) -> np.ndarray:
        """Whether each token is the first one of its text, shape (tokens,)."""
        return np.diff(self.numbers, prepend=-1) != 0

    def count_by_text(self, some: np.ndarray) -> np.ndarray:
        """Count some of the tokens by their text, shape (texts,)."""
        return np.bincount(self.numbers[some], minlength=len(self.texts))


@dataclass(frozen=True, kw_only=True)
class Entities:
    """The entities of several texts, one text after the other.

    Attributes:
        counts: entities of each text, shape (texts,).
        labels: the label of each, or of its group.
        scores: shape (entities,).
        words: the text of each.
        spans: the first character and the one after the last, shape (entities, 2).
        places: the token of each; None for groups of them.
    """

    counts: np.ndarray
    labels: list[Any]
    scores: np.ndarray
    words: list[str]
    spans: np.ndarray
    places: np.ndarray | None

    def list_entities(self) -> Iterator[Entity]:
        """Yield each one as the pipeline has it."""
        label = "entity_group" if self.places is None else "entity"
        for i, (name, word) in enumerate(zip(self.labels, self.words, strict=True)):
            place = {} if self.places is None else {"index": int(self.places[i])}
            start, end = self.spans[i].tolist()
            found = {label: name, "score": self.scores[i], **place}
            yield {**found, "word": word, "start": start, "end": end}


class EntityFinder:
    """Finds entities as the token-classification pipeline does.

    Args:
        pipeline: a TokenClassificationPipeline of transformers.
        keywords: those of its `postprocess`.
    """

    def __init__(self, pipeline: Any, keywords: Mapping[str, Any]) -> None:
        self.pipeline, self.tokenizer = pipeline, pipeline.tokenizer
        strategy = keywords.get("aggregation_strategy") or "none"
        self.strategy: str = getattr(strategy, "value", strategy)
        ignored = keywords.get("ignore_labels")
        self.ignored: list[str] = ["O"] if ignored is None else ignored

    def find(self, tokens: PlacedTokens, scores: np.ndarray) -> Entities:
        """Return the entities whose labels are not ignored.

        Args:
            tokens: the texts' tokens.
            scores: of each label, all of them numbers, shape (tokens, labels).

        Raises:
            KeyError: `id2label` does not name a label.
        """
        if self.strategy in ("none", "simple"):
            starts = np.arange(len(scores))
            labelled = scores
        else:
            starts = np.flatnonzero(~self._find_subwords(tokens))
            labelled = self._score_words(scores, starts)
        best = labelled.argmax(axis=-1)
        scores = labelled[np.arange(len(best)), best]
        names = self._name_labels(best)
        if self.strategy == "none":
            return self._select(tokens, names, best, scores)
        return self._group(tokens, names, best, scores, starts)

    def _name_labels(self, best: np.ndarray) -> dict[int, Any]:
        """Return the name of each label that a token has."""
        labels = self.pipeline.model.config.id2label
        return {label: labels[label] for label in np.unique(best).tolist()}

    def _select(
        self, tokens: PlacedTokens, names: dict[int, Any], best: np.ndarray, scores: np.ndarray
    ) -> Entities:
        """Return the tokens whose label is not ignored."""
        wanted = [label for label, name in names.items() if name not in self.ignored]
        kept = np.flatnonzero(np.isin(best, wanted))
        return Entities(
            counts=tokens.count_by_text(kept),
            labels=[names[label] for label in best[kept].tolist()],
            scores=scores[kept],
            words=self._name_tokens(tokens, kept),
            spans=tokens.spans[kept],
            places=tokens.places[kept],
        )

    def _group(
        self,
        tokens: PlacedTokens,
        names: dict[int, Any],
        best: np.ndarray,
        scores: np.ndarray,
        starts: np.ndarray,
    ) -> Entities:
        """Join neighbours of one label, which may begin with B- and I-.

        Args:
            tokens: the texts' tokens.
            names: the labels' names.
            best: the label of each token, or word.
            scores: its score.
            starts: its first token.
        """
        tags = {label: self.pipeline.get_tag(name) for label, name in names.items()}
        groups = {label: name.split("-", 1)[-1] for label, name in names.items()}
        numbers = {tag: number for number, (_, tag) in enumerate(tags.values())}
        tag_of = np.zeros(max(names, default=0) + 1, np.int64)
        for label, (_, tag) in tags.items():
            tag_of[label] = numbers[tag]
        own = tag_of[best]
        begins = tokens.are_first[starts]
        begins |= np.isin(best, [label for label, (prefix, _) in tags.items() if prefix == "B"])
        begins[1:] |= own[1:] != own[:-1]
        first = np.flatnonzero(begins)
        after = np.append(first[1:], len(best))[: len(first)]
        wanted = [label for label, group in groups.items() if group not in self.ignored]
        kept = np.isin(best[first], wanted)
        first, after = first[kept], after[kept]
        bounds = np.append(starts, len(tokens.ids))  # each ends where the next one starts
        sums = _reduce_ranges(scores[:, None], first, after, "sum")[:, 0]
        return Entities(
            counts=tokens.count_by_text(starts[first]),
            labels=[groups[label] for label in best[first].tolist()],
            scores=(sums / (after - first)).astype(scores.dtype),
            words=self._join_groups(tokens, bounds, first, after),
            spans=np.stack(
                [tokens.spans[bounds[first], 0], tokens.spans[bounds[after] - 1, 1]], axis=1
            ),
            places=None,
        )

    def _join_groups(
        self, tokens: PlacedTokens, bounds: np.ndarray, first: np.ndarray, after: np.ndarray
    ) -> list[str]:
        """Return the text of each group of neighbours, which lie between two of the bounds."""
        lengths = bounds[after] - bounds[first]
        parts = self._name_tokens(tokens, concatenate_ranges(bounds[first], lengths))
        join, words, at = self.tokenizer.convert_tokens_to_string, [], 0
        for a, b in zip(first.tolist(), after.tolist(), strict=True):
            cuts = [at + cut for cut in (bounds[a : b + 1] - bounds[a]).tolist()]
            at = cuts[-1]
            if self.strategy == "simple":
                words.append(join(parts[cuts[0] : at]))
            else:
                each = zip(cuts, cuts[1:], strict=False)
                words.append(join([join(parts[i:j]) for i, j in each]))
        return words

    def _score_words(self, scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the scores of each word's labels, shape (words, labels).

        starts: the first token of each word.
        """
        ends = np.append(starts, len(scores))[1:]
        if self.strategy == "max":
            highest = scores.max(axis=-1)[:, None]
            return scores[starts + _reduce_ranges(highest, starts, ends, "argmax")[:, 0]]
        if self.strategy == "average":
            sums = _reduce_ranges(scores, starts, ends, "sum")
            return sums / (ends - starts).astype(scores.dtype)[:, None]
        return scores[starts]

    def _find_subwords(self, tokens: PlacedTokens) -> np.ndarray:
        """Tell of each token whether it continues the word of the one before, shape (tokens,)."""
        starts = tokens.spans[:, 0]
        model = getattr(getattr(self.tokenizer, "_tokenizer", None), "model", None)
        if getattr(model, "continuing_subword_prefix", None):
            known, numbers = np.unique(tokens.ids, return_inverse=True)
            names = self.tokenizer.convert_ids_to_tokens(known.tolist())
            lengths = np.array(list(map(len, names)), int)[numbers]
            found = lengths != self._measure_spans(tokens)
        else:  # a heuristic: the character before it is no space, nor is its first one
            places = zip(tokens.numbers.tolist(), starts.tolist(), strict=True)
            found = np.array(
                [a > 0 and " " not in tokens.texts[i][a - 1 : a + 1] for i, a in places], bool
            )
        return found & (tokens.ids != self._unknown) & ~tokens.are_first

    def _measure_spans(self, tokens: PlacedTokens) -> np.ndarray:
        """Count the characters of each token in its text, shape (tokens,)."""
        ends = np.array(list(map(len, tokens.texts)), int)[tokens.numbers]
        starts, ends = np.minimum(tokens.spans, ends[:, None]).T
        return np.maximum(ends - starts, 0)

    @property
    def _unknown(self) -> int:
        known = self.tokenizer.unk_token_id
        return -1 if known is None else known

    def _name_tokens(self, tokens: PlacedTokens, numbers: np.ndarray) -> list[str]:
        """Return tokens as the vocabulary names them; unknown ones as the text has them."""
        ids = tokens.ids[numbers]
        names = self.tokenizer.convert_ids_to_tokens(ids.tolist())
        unknown = np.flatnonzero(ids == self._unknown)
        texts = tokens.numbers[numbers[unknown]].tolist()
        spans = tokens.spans[numbers[unknown]].tolist()
        for i, text, (start, end) in zip(unknown.tolist(), texts, spans, strict=True):
            names[i] = tokens.texts[text][start:end]
        return names


def _reduce_ranges(
    values: np.ndarray, starts: np.ndarray, ends: np.ndarray, method: str
) -> np.ndarray:
    """Reduce ranges of rows, as numpy reduces each alone, to the last bit; `reduceat` would not.

    Args:
        values: shape (rows, width).
        starts: the first row of each range.
        ends: the row after its last one.
        method: of an array: "sum" or "argmax".

    Returns:
        Shape (ranges, width).
    """
    lengths = ends - starts
    reduced = np.zeros((len(starts), values.shape[1]), values.dtype if method == "sum" else int)
    for length in np.unique(lengths).tolist():
        some = np.flatnonzero(lengths == length)
        rows = values[starts[some, None] + np.arange(length)]
        reduced[some] = getattr(rows, method)(axis=1)
    return reduced
