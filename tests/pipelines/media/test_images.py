"""Pictures against `transformers.image_utils.load_image`, and those where it is not right."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import PIL
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from pipemill.pipelines.media import decode_image, encode_png
from transformers.image_utils import load_image

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (23, 37, 3), np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (23, 37, 4), np.uint8))


def saved(picture: Image.Image, format: str, **options) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, format, **options)
    return sink.getvalue()


def oriented(turn: int, format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return saved(RGB, format, exif=exif)


def frames(format: str, **options) -> bytes:
    others = [Image.new("RGB", RGB.size, colour) for colour in ("red", "blue")]
    return saved(RGB, format, save_all=True, append_images=others, **options)


def loaded(data: bytes, path) -> Image.Image:
    """What transformers makes of the same file."""
    path.write_bytes(data)
    return load_image(str(path))


ORDINARY = {
    **{f"{f} RGB": saved(RGB, f) for f in "PNG JPEG WEBP GIF TIFF BMP PPM AVIF TGA ICO".split()},
    "grey": saved(RGB.convert("L"), "PNG"),
    "grey JPEG": saved(RGB.convert("L"), "JPEG"),
    "CMYK": saved(RGB.convert("CMYK"), "JPEG"),
    "1 bit": saved(RGB.convert("1"), "PNG"),
    "1 bit TIFF": saved(RGB.convert("1"), "TIFF", compression="group4"),
    "RGBA": saved(RGBA, "PNG"),
    "RGBA WebP": saved(RGBA, "WEBP", lossless=True),
    "LA": saved(RGBA.convert("LA"), "PNG"),
    "palette": saved(RGB.convert("P"), "PNG"),
    "palette with transparency": saved(RGB.convert("P"), "PNG", transparency=3),
    "palette with alphas": saved(RGB.convert("P"), "PNG", transparency=bytes(range(256))),
    # Older ones can't read what they write.
    **(
        {"YCbCr TIFF": saved(RGB.convert("YCbCr"), "TIFF")}
        if int(PIL.__version__.split(".")[0]) >= 13
        else {}
    ),
    "progressive": saved(RGB, "JPEG", progressive=True),
    "JPEG 2000": saved(RGB, "JPEG2000"),
    "animated GIF": frames("GIF"),
    "animated WebP": frames("WEBP", lossless=True),
    "APNG": frames("PNG"),
    "pages": frames("TIFF"),
    "MPO": frames("MPO"),
    **{f"turn {n}": oriented(n) for n in range(1, 9)},
    **{f"turn 6 {f}": oriented(6, f) for f in ("PNG", "WEBP", "TIFF", "AVIF")},
    "turn 0": oriented(0),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_as_transformers_loads_it(name, tmp_path):
    expected = loaded(ORDINARY[name], tmp_path / "wrong.txt")
    ours = decode_image(ORDINARY[name])
    assert ours.mode == "RGB"
    assert ours.size == expected.size
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))
    assert len(np.unique(np.asarray(ours))) > 1
    # A pipeline takes it for one that may have to be turned.
    np.testing.assert_array_equal(np.asarray(load_image(ours)), np.asarray(expected))


def test_turned_pictures_stand_upright():
    sizes = {decode_image(oriented(n)).size for n in (1, 2, 3, 4)}
    assert sizes == {(37, 23)}
    assert {decode_image(oriented(n)).size for n in (5, 6, 7, 8)} == {(23, 37)}


def test_the_first_frame_of_animations():
    for name in ("animated GIF", "animated WebP", "APNG", "pages"):
        several = Image.open(io.BytesIO(ORDINARY[name]))
        first, *others = [frame.convert("RGB") for frame in ImageSequence.Iterator(several)]
        assert len(others) == 2
        assert np.array_equal(np.asarray(decode_image(ORDINARY[name])), np.asarray(first))


def _png16(colour: int, values: np.ndarray, **chunks: bytes) -> bytes:
    """A PNG of 16 bits, which Pillow writes for grey only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    others = b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    body = others + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


RAMP = np.array([[0, 100, 255, 256, 1000, 32768, 65535]], np.uint16)
SHADES = [0, 0, 0, 1, 3, 128, 255]


def _tiff16(**tags) -> bytes:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[int(tag[1:])] = value
    return saved(Image.fromarray(RAMP), "TIFF", tiffinfo=directory)


DEEP = {
    "PNG": saved(Image.fromarray(RAMP), "PNG"),
    "PNG with a transparent value": _png16(0, RAMP, tRNS=b"\0\x05"),
    "TIFF": saved(Image.fromarray(RAMP), "TIFF"),
    "big-endian TIFF": saved(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "JPEG 2000": saved(Image.fromarray(RAMP), "JPEG2000"),
    "PGM": saved(Image.fromarray(RAMP), "PPM"),
    "ASCII PGM": b"P2 7 1 65535\n" + " ".join(map(str, RAMP[0])).encode(),
}


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bits_of_grey_are_scaled(name, tmp_path):
    pixels = np.asarray(decode_image(DEEP[name]))
    assert (pixels == pixels[..., :1]).all()
    assert pixels[0, :, 0].tolist() == SHADES
    # The reason why not as transformers: all but the three darkest would be white.
    assert np.asarray(loaded(DEEP[name], tmp_path / "x"))[0, 3:, 0].tolist() == [255] * 4


def test_sixteen_bits_of_colour_come_out_like_grey(tmp_path):
    data = _png16(2, np.stack([RAMP] * 3, axis=-1))
    assert np.asarray(decode_image(data))[0, :, 0].tolist() == SHADES
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(loaded(data, tmp_path / "x")))


def test_white_is_zero():
    pixels = np.asarray(decode_image(_tiff16(t262=0)))
    assert pixels[0, :, 0].tolist() == [255 - shade for shade in SHADES]


def test_pixels_of_32_bits():
    small = Image.fromarray(np.array([[0, 7, 255]], np.int32))
    assert np.asarray(decode_image(saved(small, "TIFF")))[0, :, 0].tolist() == [0, 7, 255]
    for array in (RAMP.astype(np.int32), RAMP / np.float32(65535), -RAMP.astype(np.float32)):
        with pytest.raises(ValueError, match=r"^the image has 32-bit pixels from .* 8 or 16 bits"):
            decode_image(saved(Image.fromarray(array), "TIFF"))
    with pytest.raises(ValueError, match="^the image has 32-bit pixels from nan"):
        decode_image(saved(Image.fromarray(np.full((1, 2), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"^the image is empty \(0 bytes\)"),
        (b"<html>404", "^the image is in a format.* it is a web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "^the image is in a format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "^the image is in a format"),
        *[
            (ORDINARY[f"{f} RGB"][:-200], "^the image is broken or cut off")
            for f in ("PNG", "JPEG")
        ],
        (ORDINARY["PNG RGB"][:30], "^the image is (broken|in a format)"),
        (ORDINARY["TIFF RGB"][:-500], "^the image is (broken|in a format)"),
    ],
)
def test_what_is_no_whole_image_says_so(data, message):
    with pytest.raises(ValueError, match=message):
        decode_image(data)


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    for side in (21, 100):  # where Pillow warns, and where it raises
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="^the image is too large.*limit of (400|800)"):
                decode_image(saved(Image.new("1", (side, 20)), "PNG"))
    assert decode_image(saved(Image.new("1", (20, 20)), "PNG")).size == (20, 20)
    huge = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    data = ORDINARY["PNG RGB"]
    head = struct.pack(">I", 13) + b"IHDR" + huge + struct.pack(">I", zlib.crc32(b"IHDR" + huge))
    with pytest.raises(ValueError, match="^the image is too large"):
        decode_image(data[:8] + head + data[33:])


def test_broken_exif_is_no_exif():
    data = oriented(6)
    at = data.index(b"Exif\0\0") + 6
    assert decode_image(data[:at] + b"XX*\0" + data[at + 4 :]).size == RGB.size


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ORDINARY) + sorted(DEEP)), st.data())
def test_broken_files_are_errors_of_the_row(name, draw):
    data = bytearray({**ORDINARY, **DEEP}[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.sampled_from([len(data), draw.draw(st.integers(0, len(data)))]))
    _only_errors_of_the_row(bytes(data[:cut]))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_errors_of_the_row(data):
    _only_errors_of_the_row(data)


def _only_errors_of_the_row(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert decode_image(data).mode == "RGB"
        except (ValueError, OSError) as error:
            assert str(error)  # noqa: PT017


def test_png_round_trips():
    mask = RNG.random((9, 14)) > 0.5
    again = np.asarray(Image.open(io.BytesIO(encode_png(mask))))
    assert again.dtype == bool
    assert np.array_equal(again, mask)
    levels = RNG.integers(0, 256, (9, 14), np.uint8)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(encode_png(levels[::-1])))), levels[::-1]
    )
    assert np.array_equal(np.asarray(decode_image(encode_png(RGB))), np.asarray(RGB))
    assert encode_png(mask) == encode_png(mask.copy())


@pytest.mark.parametrize(
    "picture",
    [np.zeros((2, 2), np.float32), np.zeros(4, bool), np.zeros((0, 4), bool), RGB.convert("CMYK")],
    ids=["float", "one axis", "empty", "CMYK"],
)
def test_what_png_cannot_hold(picture):
    with pytest.raises(ValueError, match="^no PNG of"):
        encode_png(picture)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(99), "it is HEIC: save it as JPEG or PNG$"),
        (b"\0\0\0\x18ftypisom" + bytes(99), "it is a video$"),
        (b'<?xml version="1.0"?>\n<svg width="9">', "it is SVG: save it as PNG$"),
        (b"%PDF-1.7 and so on", "it is PDF: save its pages as PNG$"),
        (b"<!DOCTYPE html><title>404", "it is a web page$"),
        (bytes(128) + b"DICM" + bytes(99), "it is DICOM: save its pixels as PNG$"),
        (b"\xff\n" + bytes(99), "it is JPEG XL: save it as JPEG or PNG$"),
        (b"\x93NUMPY\x01\0" + bytes(99), "it is an array of numpy: save it as PNG$"),
        (b"ABC" * 50, r"its 150 bytes begin with b'ABC"),
    ],
)
def test_what_is_no_picture_is_named(data, what):
    with pytest.raises(ValueError, match=f"a format that pipemill does not read; {what}"):
        decode_image(data)
