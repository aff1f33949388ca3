"""A row's inputs alone decide its random numbers, and finding them costs little."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from pipemill.pipelines.adapter.images.chunk_encoding import Scale, quantize_images
from pipemill.pipelines.adapter.row_seed import _feed, find_seed


def image(seed, side=700):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, side, side), generator=random) / 255


class CountedDigest:
    fed = 0

    def update(self, data):
        self.fed += len(data)


def test_a_large_image_is_not_read_whole():
    """Hashing each number of a large image takes longer than some models do."""
    for pixels in (image(1), image(1).numpy(), quantize_images(image(1), Scale(1 / 255, (), ()))):
        digest = CountedDigest()
        _feed(digest, {"pixel_values": pixels})
        assert 0 < digest.fed < 2**20


def test_other_inputs_have_other_seeds():
    ids = torch.arange(100)[None]
    levels = quantize_images(image(1), Scale(1 / 255, (), ()))
    several = [
        {"input_ids": ids},
        {"input_ids": ids + 1},
        {"input_ids": ids, "pixel_values": image(1)},
        {"input_ids": ids, "pixel_values": image(2)},
        {"input_ids": ids, "pixel_values": image(2, 701)},
        {"input_ids": ids, "pixel_values": levels},
        {"input_ids": ids, "text": "a"},
    ]
    seeds = list(map(find_seed, several))
    assert len(set(seeds)) == len(seeds)
    assert seeds == list(map(find_seed, several))


def test_each_sample_of_a_long_sound_decides_its_seed():
    """As in older versions, whose answers of CLAP `verify --sample` computes again."""
    sound = np.random.default_rng(0).standard_normal(480_000)
    digest = hashlib.blake2b(repr("raw").encode() + sound.tobytes(), digest_size=7).digest()
    assert find_seed({"raw": sound}) == int.from_bytes(digest, "big")
