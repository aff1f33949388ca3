"""Texts written after prompts, beside `transformers.pipeline` with its batches.

    python -m benchmarks.generation [--only decoder] [--rows 160] [--rounds 3]

In one process on one thread, the models loaded, in CPU seconds: models of random weights, prompts
of 2 to 40 words, greedy, up to 96 new tokens, and end tokens that come sooner for most. With four
beams, models are as large as T5-small, which reads 40 to 400 words, and opus-mt. With images, a
model as SmolVLM is, of the decoder's size, reads one of 128 by 128 pixels in each prompt. The
pipeline has batch sizes of 8, 32 and 64. All texts are compared with those of batch size 1.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import transformers
from pipemill.pipelines.adapter.row_seed import find_seed
from pipemill.pipelines.engines.base import Prompt
from pipemill.pipelines.engines.generation.continuous_generation import ContinuousGeneration

import pipemill

BATCHES = (8, 32, 64)
NEW_TOKENS = 96
_TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_PIXELS = 128
WORDS = "river city stone green seven walk paper north cloud music bread clock lamp under".split()


def make_tokenizer(vocabulary: int = 0) -> Any:
    """Train a byte-level tokenizer on the words of prompts, and add names for other tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        model_max_length=2048,
    )  # fmt: skip
    tokenizer.add_tokens([f"[{number}]" for number in range(len(tokenizer), vocabulary)])
    return tokenizer


def make_decoder(vocabulary: int) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=384, intermediate_size=1024, num_hidden_layers=8,
        num_attention_heads=6, initializer_range=0.15, **_TOKENS,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def make_t5(vocabulary: int, **shape: int) -> Any:
    usual = {"d_model": 384, "d_ff": 1024, "num_heads": 6, "num_layers": 4}
    config = transformers.T5Config(
        vocab_size=vocabulary, d_kv=64, decoder_start_token_id=1, **{**usual, **shape}, **_TOKENS
    )
    model = transformers.T5ForConditionalGeneration(config)
    for weights in model.parameters():
        if weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.1)
    torch.nn.init.normal_(model.shared.weight, std=1.0)
    return model


def make_marian(vocabulary: int, width: int = 384, inner: int = 1024, layers: int = 4) -> Any:
    config = transformers.MarianConfig(
        vocab_size=vocabulary, d_model=width, encoder_ffn_dim=inner, decoder_ffn_dim=inner,
        encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64, init_std=0.04, decoder_start_token_id=1,
        forced_eos_token_id=None, tie_word_embeddings=False, **_TOKENS,
    )  # fmt: skip
    model = transformers.MarianMTModel(config)
    # Otherwise nearly all texts are one token again and again.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    return model


def make_t5_small(vocabulary: int) -> Any:
    return make_t5(vocabulary, d_model=512, d_ff=2048, num_heads=8, num_layers=6)


def make_opus(vocabulary: int) -> Any:
    return make_marian(vocabulary, width=512, inner=2048, layers=6)


def make_idefics(vocabulary: int) -> Any:
    seen = {
        "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6,
        "num_attention_heads": 3, "image_size": _PIXELS, "patch_size": 16,
    }  # fmt: skip
    config = transformers.Idefics3Config(
        vision_config=seen, text_config=make_decoder(vocabulary).config, scale_factor=1,
        image_token_id=vocabulary - 2, pad_token_id=1,  # as the processor adds it
    )  # fmt: skip
    return transformers.Idefics3ForConditionalGeneration(config)


def make_processor(tokenizer: Any) -> Any:
    """Make what an Idefics reads of a text of an image: 64 patches of it."""
    size = {"longest_edge": _PIXELS}
    image = transformers.Idefics3ImageProcessorPil(
        size=size, max_image_size=size, do_image_splitting=False
    )
    return transformers.Idefics3Processor(image, tokenizer, image_seq_len=64)


def make_picture(chance: random.Random) -> Any:
    from PIL import Image

    return Image.frombytes("RGB", (_PIXELS, _PIXELS), chance.randbytes(3 * _PIXELS**2))


@dataclass(frozen=True)
class Shape:
    """A model, what it does, and the settings beside the usual ones.

    Attributes:
        written: what `_forward` calls the ids.
        vocabulary: the number of its tokens; 0 for those of the words and letters.
        words: the least and the most of a prompt.
    """

    make: Callable[[int], Any]
    task: str = "text2text-generation"
    written: str = "output_ids"
    vocabulary: int = 0
    words: tuple[int, int] = (2, 40)
    settings: Mapping[str, Any] = field(default_factory=lambda: {"no_repeat_ngram_size": 2})


_BEAMS = {"num_beams": 4, "no_repeat_ngram_size": 3}
SHAPES = {
    "decoder": Shape(make_decoder, "text-generation", "generated_sequence", settings={}),
    "t5": Shape(make_t5),
    "marian": Shape(make_marian),
    "images": Shape(make_idefics, "image-text-to-text", "generated_sequence", settings={}),
    "t5-beams": Shape(make_t5_small, vocabulary=32_128, words=(40, 400), settings=_BEAMS),
    "marian-beams": Shape(make_opus, vocabulary=58_101, settings={**_BEAMS, "max_new_tokens": 40}),
}


class Contest:
    """One model, and the ways to have its texts."""

    def __init__(self, name: str, rows: int) -> None:
        shape = SHAPES[name]
        torch.manual_seed(11)
        tokenizer = make_tokenizer(shape.vocabulary)
        more, self.sees = {}, shape.task == "image-text-to-text"
        if self.sees:
            more["processor"] = make_processor(tokenizer)
            tokenizer.padding_side = "left"
        model = shape.make(len(tokenizer)).eval()
        self.pipeline = transformers.pipeline(shape.task, model=model, tokenizer=tokenizer, **more)
        chance = random.Random(3)
        texts = [
            " ".join(chance.choices(WORDS, k=chance.randint(*shape.words))) for _ in range(rows)
        ]
        self.rows: list[Any] = texts
        if self.sees:
            self.rows = [{"images": make_picture(chance), "text": f"<image>{t}"} for t in texts]
        self.settings = {
            "do_sample": False, "num_beams": 1, "max_new_tokens": NEW_TOKENS, "pad_token_id": 1,
            **shape.settings,
        }  # fmt: skip
        self.settings["eos_token_id"] = self._choose_ends()
        self.engine = ContinuousGeneration(self.pipeline, shape.written)

    def _choose_ends(self) -> list[int]:
        """Return tokens that end most of the texts, after few and after many tokens."""
        ids = [
            self.pipeline(row, return_tensors=True, **self._nest({"eos_token_id": 2}))[0]
            for row in self.rows[:3]
        ]
        written = [list(map(int, one["generated_token_ids"]))[-NEW_TOKENS:] for one in ids]
        places = zip((25, 50, 75), written, strict=True)
        return [2, *(one[place] for place, one in places if place < len(one))]

    def _nest(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the usual settings and these, as the pipeline takes them."""
        every = {**self.settings, **settings}
        return {"generate_kwargs": every} if self.sees else every

    def run_ours(self) -> list[str]:
        prompts = [
            Prompt(
                inputs=(inputs := self.pipeline.preprocess(row)),
                keywords=self._nest({}),
                settings="",
                seed=find_seed(inputs),
                load=partial(copy.copy, inputs) if self.sees else None,
            )
            for row in self.rows
        ]
        outputs = self.engine.write_all(prompts)
        assert all(isinstance(output, dict) for output in outputs)
        return [self.pipeline.postprocess(output)[0]["generated_text"] for output in outputs]

    def run_pipeline(self, batch: int) -> list[str]:
        if not self.sees:
            answers = self.pipeline(self.rows, batch_size=batch, **self.settings)
        else:  # its `batch_size` fails for a processor, as of 5.23
            answers = [
                answer
                for begin in range(0, len(self.rows), batch)
                for answer in self.pipeline(
                    [row["images"] for row in self.rows[begin : begin + batch]],
                    [row["text"] for row in self.rows[begin : begin + batch]],
                    **self._nest({}),
                )
            ]
        return [(one[0] if isinstance(one, list) else one)["generated_text"] for one in answers]


def compare(
    name: str, rows: int, rounds: int, batches: tuple[int, ...] = BATCHES
) -> dict[str, Any]:
    """Return the CPU seconds of each way, and how many of its texts are the right ones."""
    contest = Contest(name, rows)
    truth = contest.run_pipeline(1)
    ways: dict[str, Callable[[], list[str]]] = {"pipemill": contest.run_ours}
    for batch in batches:
        ways[f"batches of {batch}"] = lambda batch=batch: contest.run_pipeline(batch)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    right = {}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.process_time()
            texts = run()
            seconds[way].append(time.process_time() - start)
            right[way] = sum(map(str.__eq__, texts, truth))
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    best = min(medians[way] for way in ways if way != "pipemill")
    return {
        "model": name,
        "rows": rows,
        "cpu_seconds": {way: round(each, 2) for way, each in medians.items()},
        "equal_texts": right,
        "ratio": round(best / medians["pipemill"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names of models, with commas between them")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    pipemill.restore_pipelines()
    for name in options.only.split(",") if options.only else SHAPES:
        print(json.dumps(compare(name, options.rows, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
