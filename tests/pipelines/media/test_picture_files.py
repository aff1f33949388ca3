"""PIL images as rows: read as `load_image` reads the picture itself, upright, in any mode."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import transformers
from PIL import Image
from pipemill.pipelines.media.images import decode_image
from pipemill.pipelines.media.picture_files import encode_picture
from transformers.image_utils import load_image

import pipemill

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
COLOURS = Image.fromarray(NOISE)
_ORIENTATION = 274


def make(mode: str) -> Image.Image:
    if mode in ("I", "F"):
        return Image.fromarray(NOISE[:, :, 0].astype(np.int32 if mode == "I" else np.float32))
    if mode in ("La", "RGBa"):
        return COLOURS.convert(mode.upper()).convert(mode)
    if mode == "PA":
        return COLOURS.convert("P").convert("PA")
    return COLOURS.convert(mode)


def opened(mode: str, format: str, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    sink = io.BytesIO()
    make(mode).save(sink, format, exif=exif)
    return Image.open(io.BytesIO(sink.getvalue()))


def assert_read_alike(picture: Image.Image) -> None:
    known = picture.convert("LA") if picture.mode == "La" else picture  # load_image fails at it
    expected = np.asarray(load_image(known.copy()))
    assert np.array_equal(np.asarray(decode_image(encode_picture(picture))), expected)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I",
     "F"],
)  # fmt: skip
def test_a_picture_of_any_mode_is_read_as_it_is(mode):
    assert_read_alike(make(mode))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "format"), [("RGB", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG")]
)
def test_it_is_turned_by_its_exif(mode, format, orientation):
    assert_read_alike(opened(mode, format, orientation))


def test_what_is_given_is_not_changed():
    picture = opened("RGB", "JPEG", 6)
    before = picture.size, dict(picture.info)
    encode_picture(picture)
    assert (picture.size, dict(picture.info)) == before


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_grey_of_16_bits_is_scaled_as_a_files_is(mode, tmp_path):
    levels = (NOISE[:, :, 0].astype(np.uint16) << 8) + 7
    wide = Image.frombytes(mode, (9, 6), levels.astype(">u2" if mode == "I;16B" else "<u2"))
    assert np.array_equal(np.asarray(decode_image(encode_picture(wide)))[:, :, 0], NOISE[:, :, 0])


def test_a_tiff_with_white_as_zero_is_read_as_its_file_is(tmp_path):
    path = tmp_path / "white.tiff"
    wide = Image.fromarray((NOISE[:, :, 0].astype(np.uint16)) << 8)
    wide.save(path, tiffinfo={262: 0})
    expected = np.asarray(decode_image(path.read_bytes()))
    assert np.array_equal(np.asarray(decode_image(encode_picture(Image.open(path)))), expected)


@pytest.mark.parametrize("kind", [list, pd.DataFrame])
def test_pictures_that_fail_are_dead_letters(kind, models, tmp_path):
    COLOURS.save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-60])
    with Image.open(tmp_path / "good.png") as closed:
        pass
    nothing = np.zeros((0, 4, 3), np.uint8)
    wide = Image.fromarray(np.full((4, 4), 70_000, np.int32))
    pictures = [
        COLOURS, Image.open(tmp_path / "cut.png"), closed, wide, Image.new("RGB", (0, 3)),
        make("LAB") if "LAB" in Image.MODES else COLOURS, opened("RGB", "JPEG", 6), None, nothing,
    ]  # fmt: skip
    report = pipemill.run(
        task="image-classification",
        model=models["image-classification"],
        input=kind([{"image": picture, "n": n} for n, picture in enumerate(pictures)]),
        output={"path": str(tmp_path / "out"), "max_errors": None},
        actors={"placement": "local"},
    )
    dead = pipemill.read(report.output, dead_letters=True).to_table().to_pylist()
    why = {row["n"]: row["message"] for row in dead}
    assert "cut off" in why[1]
    assert "32-bit pixels from 70000 to 70000" in why[3]
    assert "empty" in why[4]
    assert set(why) == {1, 3, 4, 7, 8}
    classify = transformers.pipeline("image-classification", models["image-classification"])
    for row in pipemill.read(report.output).to_table().to_pylist():
        answers = classify(pictures[row["n"]] if row["n"] != 2 else COLOURS)
        assert row["labels"] == [one["label"] for one in answers]
        np.testing.assert_allclose(row["scores"], [one["score"] for one in answers], atol=1e-5)


def test_a_picture_without_a_file_that_can_not_be_read_is_named():
    closed = Image.open(io.BytesIO(encode_picture(COLOURS)))
    closed.close()
    with pytest.raises(ValueError, match="a picture can't be read"):
        encode_picture(closed)
