"""fill-mask: the most likely tokens for each mask of a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pipemill.actors.arrow_arrays import make_lists
from pipemill.actors.device_transfer import Outputs, to_device
from pipemill.actors.faults.bisect import forget_call
from pipemill.actors.faults.watchdog import mark_progress
from pipemill.actors.task import Column, Loaded, Parameter

from ..adapter.token_columns import TokenColumns, knows_pipeline
from ..engines.stacking import copy_kwargs
from ..pipeline_task import PipelineTask, Values
from ..text import token_chunks, windows
from ..text.long_texts import tokenize
from . import shared_parameters

if TYPE_CHECKING:
    from ..adapter.pipeline_adapter import PipelineAdapter

_PREDICTIONS = pa.list_(
    pa.struct(
        [
            ("score", pa.float32()),
            ("token", pa.int32()),
            ("token_str", pa.string()),
            ("sequence", pa.string()),
        ]
    )
)

_MAX_WORD = 64  # the most characters that are left out to begin and end with whole words


def _make_schema(loaded: Loaded) -> pa.Schema:
    several = loaded.parameters.get("several_masks", False)
    return pa.schema([("predictions", pa.list_(_PREDICTIONS) if several else _PREDICTIONS)])


def _has_several_masks(columns: Mapping[str, list[Any]], model: Path) -> bool:
    """Return whether a row has several masks.

    Then `predictions` holds a list for each mask, in every row.
    """
    mask = _read_mask_token(model)
    return mask is not None and any((text or "").count(mask) > 1 for text in columns["text"])


def _read_mask_token(model: Path) -> str | None:
    """Return the mask token that the files of the model's folder name; None if they do not."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads((model / name).read_text(encoding="utf-8")).get("mask_token")
        except (OSError, ValueError):
            continue
        if token:
            return token["content"] if isinstance(token, dict) else token
    return None


def _to_predictions(answer: Any, values: Values) -> Values:
    nested = bool(answer) and isinstance(answer[0], list)
    if values.get("several_masks", False):
        return {"predictions": answer if nested else [answer]}
    if nested:
        raise ValueError(
            f"the text has {len(answer)} masks, and predictions has room for one: set "
            "parameters.several_masks to true to get a list for each mask"
        )
    return {"predictions": answer}


def _check_top_k(values: Values, pipeline: Any) -> None:
    size, top_k = pipeline.model.config.get_text_config().vocab_size, values["top_k"]
    # Where targets are a column they are missing here: each row is checked with its own.
    if "targets" in values and values["targets"] is None and top_k > size:
        raise ValueError(f"top_k ({top_k}) must be at most the model's {size} tokens")


def _shorten_around_masks(
    text: str, pipeline: Any, before: Mapping[str, Any], limit: int | None
) -> tuple[str, int]:
    """Cut a text that is longer than the model to the whole words around its masks.

    A text is left as it is if the user sets how it is tokenized, and perhaps truncated.

    Returns:
        The part of the text, and how many tokens it lacks.
    """
    tokenizer = pipeline.tokenizer
    fast = limit is not None and tokenizer.is_fast and "tokenizer_kwargs" not in before
    # A character may be several tokens, one for each byte.
    if not fast or len(text.encode()) < limit - tokenizer.num_special_tokens_to_add():
        return text, 0
    tokens = tokenize(tokenizer, text)
    room = limit - tokenizer.num_special_tokens_to_add()
    masks = np.flatnonzero(tokens.ids == tokenizer.mask_token_id)
    while len(tokens.ids) > room and len(masks) and masks[-1] - masks[0] < room > 0:
        part = _cut_window(text, tokens.begins, int(masks[0]), int(masks[-1]), room)
        ids = tokenize(tokenizer, part).ids
        has_all_masks = np.count_nonzero(ids == tokenizer.mask_token_id) == len(masks)
        if has_all_masks and len(ids) + tokenizer.num_special_tokens_to_add() <= limit:
            return part, len(tokens.ids) - len(ids)
        room -= max(len(ids) + tokenizer.num_special_tokens_to_add() - limit, 1)
    return text, 0


def _cut_window(text: str, begins: np.ndarray, first: int, last: int, room: int) -> str:
    """Return a part of the text with the masks in its middle.

    Args:
        text: the whole text.
        begins: the character where each of its tokens begins, shape (tokens,).
        first: the first mask, as a number among the tokens.
        last: the last mask.
        room: the number of tokens of the part.
    """
    start = min(max(first - (room - (last - first + 1)) // 2, 0), len(begins) - room)
    stop = start + room
    begin = int(begins[start])
    end = int(begins[stop]) if stop < len(begins) else len(text)
    # A part of a word may be another token than it is in the word; not all scripts have spaces.
    mask_ends = int(begins[last + 1]) if last + 1 < len(begins) else len(text)
    left = range(begin, min(begin + _MAX_WORD, int(begins[first])))
    right = range(end, max(end - _MAX_WORD, mask_ends), -1)
    begin = begin and next((i for i in left if _is_gap(text, i)), begin)
    end = end if end == len(text) else next((i for i in right if _is_gap(text, i)), end)
    return text[begin:end]


def _is_gap(text: str, index: int) -> bool:
    """Return whether a word ends or begins at this character."""
    return text[index - 1].isspace() or text[index].isspace()


class FillMask(TokenColumns):
    """fill-mask of many texts at a time.

    The logits of a vocabulary are ranked on the device, for all masks of a micro-batch.
    """

    kept = ("input_ids",)

    def __init__(self, adapter: PipelineAdapter) -> None:
        super().__init__(adapter)
        targets = self.keywords.get("target_ids")
        self.targets: np.ndarray | None = targets
        count = self.keywords.get("top_k", 5)
        self.count: int = count if targets is None else min(count, len(targets))
        self.names: dict[int, str] = {}
        self.window_tokenizer = windows.WindowTokenizer.from_settings(self.pipeline, None, {})

    @classmethod
    def make(cls, adapter: PipelineAdapter) -> FillMask | None:
        """Return the task, if it is known what the pipeline does with a text."""
        from transformers import FillMaskPipeline

        before, during, _ = adapter.keywords.of("{}")
        knows = knows_pipeline(adapter, FillMaskPipeline) and not (before or during)
        if not knows or set(adapter.loaded.columns) != {"text"}:
            return None
        task = cls(adapter)
        return task if task.count > 0 and task.ranks_alike() else None

    def ranks_alike(self) -> bool:
        """Tell whether the pipeline makes the same of random logits."""
        import torch

        words, config = self.pipeline.tokenizer, self.pipeline.model.config.get_text_config()
        rng = np.random.default_rng(0)
        for text in (f"a {words.mask_token} b", f"{words.mask_token} a {words.mask_token}"):
            ids = np.array(words(text)["input_ids"])
            masks = ids == words.mask_token_id
            drawn = rng.normal(size=(len(ids), config.vocab_size))
            logits = torch.from_numpy(drawn.astype(np.float32))
            output = {"logits": logits[None], "input_ids": torch.from_numpy(ids)[None]}
            expected = self.pipeline.postprocess(output, **copy_kwargs(self.keywords))
            ranked = [tensor.numpy() for tensor in self.rank(logits[torch.from_numpy(masks)])]
            if self.fill(ids, *ranked) != expected:
                return False
        return True

    def expand_each(self, rows: pa.Table) -> tuple[pa.ListArray, dict[int, BaseException]]:
        """Return the chunks of texts that have a mask, and the errors of the others."""
        limit, texts = self.adapter.limit, rows["text"].to_pylist()
        parts = [_shorten_around_masks(text, self.pipeline, {}, limit) for text in texts]
        lists = self.window_tokenizer.make_chunks([text for text, _ in parts])
        chunks = lists.flatten()
        ids = chunks.field("input_ids")
        masks = ids.flatten().to_numpy() == self.pipeline.tokenizer.mask_token_id
        counts = np.bincount(pc.list_parent_indices(ids).to_numpy()[masks], minlength=len(texts))
        failed = {i: self._explain_lack(ids[i]) for i in np.flatnonzero(counts == 0).tolist()}
        fields = {field.name: chunks.field(field.name) for field in chunks.type}
        fields["lost"] = pa.array([lost for _, lost in parts], pa.int32())
        chunks = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        places = np.flatnonzero(counts)
        lists = make_lists(chunks.take(pa.array(places)), np.ones(len(places), int))
        lists, long = self.leave_out_long(lists)
        return lists, failed | {int(places[i]): error for i, error in long.items()}

    def _explain_lack(self, ids: pa.ListScalar) -> BaseException:
        """Return the pipeline's error of a text without a mask."""
        import torch

        try:
            self.pipeline.ensure_exactly_one_mask_token({"input_ids": [torch.tensor(ids.as_py())]})
        except Exception as error:
            return forget_call(error)
        raise AssertionError("the text has a mask")

    def forward(self, chunks: pa.StructArray) -> Outputs:
        logits, counts = self.compute(chunks)
        scores, tokens = self.rank(logits.float())
        # Numbers of tokens are exact in a float32.
        return self.gather(chunks, counts, {"scores": scores, "tokens": tokens})

    def rank(self, logits: Any) -> tuple[Any, Any]:
        """Return the best scores of each mask and their tokens, each of shape (masks, count).

        logits: shape (masks, vocabulary).
        """
        scores = logits.softmax(dim=-1)
        if self.targets is None:
            return scores.topk(self.count)
        targets = to_device(self.targets.astype(np.int64), logits.device)
        scores, places = scores[:, targets].topk(self.count)
        return scores, targets[places]

    def fill(self, ids: np.ndarray, scores: np.ndarray, tokens: np.ndarray) -> Any:
        """Return what the pipeline answers for a text, from its tokens and its masks' best ones."""
        tokenizer = self.pipeline.tokenizer
        places = np.flatnonzero(ids == tokenizer.mask_token_id).tolist()
        answer = []
        for place, values, found in zip(places, scores.tolist(), tokens.tolist(), strict=True):
            propositions = []
            for score, token in zip(values, map(int, found), strict=True):
                filled = ids.copy()
                filled[place] = token
                filled = filled[filled != tokenizer.pad_token_id]
                sequence = tokenizer.decode(filled.tolist(), skip_special_tokens=len(places) == 1)
                if token not in self.names:
                    self.names[token] = tokenizer.decode([token])
                named = {"token": token, "token_str": self.names[token]}
                propositions.append({"score": score, **named, "sequence": sequence})
            answer.append(propositions)
        return answer[0] if len(answer) == 1 else answer

    def regroup(self, rows: pa.Table, outputs: pa.ListArray) -> pa.Table:
        chunks, answers = outputs.flatten(), []
        ids, scores, tokens = (chunks.field(name) for name in ("input_ids", "scores", "tokens"))
        ranked = [token_chunks.to_matrix(values.flatten()) for values in (scores, tokens)]
        ends, mask_ends = (np.cumsum(pc.list_value_length(n).to_numpy()) for n in (ids, scores))
        every = np.split(ids.flatten().to_numpy(), ends[:-1])
        several = (np.split(matrix, mask_ends[:-1]) for matrix in ranked)
        for own, *best in zip(every, *several, strict=True):
            answers.append(self.fill(own, *best))
            mark_progress()
        return self.adapter.tabulate(rows, answers)


FILL_MASK = PipelineTask(
    name="fill-mask",
    adds="predictions: a list of structs of score, token, token_str, sequence; a list of "
    "those with several_masks",
    inputs=(
        Column(name="text", kind="text"),
        Column(name="targets", kind="texts", required=False, parameter=True),
        shared_parameters.TOP_K,
    ),
    parameters={
        "top_k": shared_parameters.count(5),
        "targets": shared_parameters.texts(None, "str|list|null"),
        "tokenizer_kwargs": Parameter(None, "dict|null"),
        "several_masks": Parameter(None, "bool|null"),
    },
    results=_make_schema,
    record=_to_predictions,
    token_outputs=("logits",),
    reads_tokens="masks",
    speed_up=FillMask.make,
    own_parameters=("several_masks",),
    suits=_check_top_k,
    shorten=_shorten_around_masks,
    sample=lambda pipeline, given: pipeline.tokenizer.mask_token,
    infer_parameters={"several_masks": _has_several_masks},
)
