"""Compressed files of several frames, as `cat` and parallel tools write them."""

from __future__ import annotations

import bz2
import io
import lzma

import pytest
import zstandard
from pipemill.actors.sources.bad_file import BadFile
from pipemill.actors.sources.streams.frames import FRAMED, FrameStream

COMPRESS = {"bz2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress}
TEXT = b"".join(b"line %d\n" % number for number in range(20_000))


def _read(data, compression):
    return io.BufferedReader(FrameStream(io.BytesIO(data), compression)).read()


@pytest.mark.parametrize("compression", FRAMED)
def test_all_frames_are_read_and_what_is_cut_off_or_foreign_is_said(compression):
    text, short, nothing = map(COMPRESS[compression], (TEXT, b"short", b""))
    assert _read(short + nothing + text + short, compression) == b"short" + TEXT + b"short"
    assert _read(nothing, compression) == _read(b"", compression) == b""
    with pytest.raises(EOFError, match="cut off"):
        _read(short + text[:-5], compression)
    with pytest.raises(BadFile, match="or damaged"):
        _read(short + b"no frame at all", compression)


def test_xz_may_have_nulls_between_its_frames_and_after_them():
    one = lzma.compress(b"one")
    assert _read(one + b"\0" * 8 + one + b"\0" * 4, "xz") == b"oneone"
