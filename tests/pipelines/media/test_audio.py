"""Sound against ffmpeg's own way, and what has gone wrong with a file."""

from __future__ import annotations

import io
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.pipelines.media import decode_audio, encode_wav

RNG = np.random.default_rng(0)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def sound(rate: int, seconds: float, channels: int) -> np.ndarray:
    """Tones and noise, another in each channel; shape (samples, channels)."""
    at = np.arange(int(rate * seconds)) / rate
    tones = [np.sin(2 * np.pi * (300 + 170 * c) * at) for c in range(channels)]
    return (0.2 * np.stack(tones, 1) + 0.05 * RNG.standard_normal((len(at), channels))).astype("f4")


def written(format: str, kind: str, rate: int = 44100, channels: int = 2, seconds=0.4) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, sound(rate, seconds, channels), rate, format=format, subtype=kind)
    return sink.getvalue()


def encoded(format: str, codec: str, rate: int, channels: int, **options) -> bytes:
    samples = np.ascontiguousarray(sound(rate, 0.4, channels).T)
    # A file on disk: to put the index first, FFmpeg opens it again by its name.
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=format, options=options) as container,
    ):
        stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[channels])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=LAYOUTS[channels])
        frame.sample_rate = rate
        codec_format = stream.codec_context.format
        for piece in av.AudioResampler(codec_format, LAYOUTS[channels], rate).resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
        container.close()
        return Path(file.name).read_bytes()


LOSSLESS = {
    **{f"wav {kind}": written("WAV", kind) for kind in "PCM_U8 PCM_16 PCM_24 PCM_32".split()},
    **{f"wav {kind}": written("WAV", kind) for kind in "FLOAT DOUBLE ULAW".split()},
    "wav 8 kHz mono": written("WAV", "PCM_16", 8000, 1),
    "wav 16 kHz mono": written("WAV", "PCM_16", 16000, 1),
    "wav 16 kHz stereo": written("WAV", "FLOAT", 16000, 2),
    "wav 6 channels": written("WAV", "PCM_16", 48000, 6),
    "flac": written("FLAC", "PCM_16"),
    "flac 24": written("FLAC", "PCM_24", 48000, 1),
    "aiff": written("AIFF", "PCM_16"),
    "w64": written("W64", "PCM_16"),
    "caf": written("CAF", "PCM_16"),
    "au": written("AU", "PCM_16"),
    "sphere": written("NIST", "PCM_16", 16000, 1),
    "sphere of telephones": written("NIST", "ULAW", 8000),
}
LOSSY = {
    "mp3": written("MP3", "MPEG_LAYER_III"),
    "mp3 mono 16 kHz": written("MP3", "MPEG_LAYER_III", 16000, 1),
    "vorbis": written("OGG", "VORBIS"),
    "opus": written("OGG", "OPUS", 48000),
    "m4a": encoded("mp4", "aac", 44100, 2, movflags="faststart"),
    "mp4 5.1": encoded("mp4", "aac", 48000, 6),
    "adts": encoded("adts", "aac", 44100, 1),
    "webm": encoded("webm", "libopus", 48000, 2),
}
FILES = {**LOSSLESS, **LOSSY}


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="compares with the ffmpeg program")
@pytest.mark.parametrize(
    ("name", "rate"), [*[(name, 16000) for name in FILES], ("flac", 48000), ("opus", 8000)]
)
def test_as_ffmpeg_reads_it(name, rate):
    from transformers.pipelines.audio_utils import ffmpeg_read

    ours = decode_audio(FILES[name], rate)
    try:
        expected = ffmpeg_read(FILES[name], rate)
    except ValueError:
        assert name in ("mp4 5.1", "caf")  # it cannot go back in a pipe
        return
    if name.startswith("mp3"):  # reading a pipe, it cannot cut the encoder's padding off the end
        expected = expected[: len(ours)]
        ours, expected = ours[:-300], expected[:-300]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_mono_of_the_right_length(name):
    samples = decode_audio(FILES[name], 16000)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 6400 <= len(samples) <= 7300


@pytest.mark.parametrize("kind", ["FLOAT", "PCM_16", "PCM_24", "PCM_U8"])
def test_samples_at_their_own_rate_are_as_written(kind):
    samples = sound(16000, 0.1, 1)
    sink = io.BytesIO()
    soundfile.write(sink, samples, 16000, format="WAV", subtype=kind)
    expected, _ = soundfile.read(io.BytesIO(sink.getvalue()), dtype="float32")
    np.testing.assert_array_equal(decode_audio(sink.getvalue(), 16000), expected)


def test_two_channels_are_mixed_as_ffmpeg_does():
    samples = sound(16000, 0.1, 2)
    mixed = decode_audio(encode_wav(samples.T, 16000), 16000)
    np.testing.assert_allclose(mixed, np.sqrt(0.5) * samples.sum(axis=1), atol=1e-6)


def test_a_tone_stays_a_tone_when_resampled():
    at = np.arange(44100) / 44100
    for value in (
        encode_wav(np.sin(2 * np.pi * 440 * at), 44100),
        {"array": np.sin(2 * np.pi * 440 * at).tolist(), "sampling_rate": 44100},
    ):
        samples = decode_audio(value, 16000)
        assert len(samples) == 16000
        expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        np.testing.assert_allclose(samples[200:-200], expected[200:-200], atol=2e-3)


def test_one_sample_at_its_own_rate():
    assert decode_audio(encode_wav([0.5], 16000), 16000).tolist() == [0.5]


def test_arrays():
    samples = sound(16000, 0.1, 2)
    for array in (samples[:, 0], samples[:, 0].tolist(), samples[:, 0].astype(np.float64)):
        ours = decode_audio({"array": array, "sampling_rate": 16000, "path": None}, 16000)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, samples[:, 0])
    np.testing.assert_allclose(
        decode_audio({"array": samples.T, "sampling_rate": 16000}, 16000),
        samples.mean(1),
        atol=1e-7,
    )
    # Whole numbers are what a file has.
    for kind, dtype in (("PCM_16", np.int16), ("PCM_32", np.int32), ("PCM_U8", np.uint8)):
        file = written("WAV", kind, 16000, 1)
        frame = next(av.open(io.BytesIO(file)).decode(audio=0))
        assert frame.to_ndarray().dtype == dtype
        head = decode_audio({"array": frame.to_ndarray()[0], "sampling_rate": 16000}, 16000)
        np.testing.assert_array_equal(head, decode_audio(file, 16000)[: len(head)])
    # The same resampling as that of a file.
    np.testing.assert_array_equal(
        decode_audio({"array": samples[:, 0], "sampling_rate": 44100}, 16000),
        decode_audio(encode_wav(samples[:, 0], 44100), 16000),
    )


def test_the_sound_of_a_video_and_of_a_wav_of_unknown_length():
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        track = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.ascontiguousarray(sound(16000, 0.5, 1).T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    assert 8000 <= len(decode_audio(sink.getvalue(), 16000)) <= 10100
    streamed = bytearray(LOSSLESS["wav 16 kHz mono"])
    streamed[4:8] = streamed[40:44] = b"\xff" * 4
    np.testing.assert_array_equal(
        decode_audio(bytes(streamed), 16000), decode_audio(LOSSLESS["wav 16 kHz mono"], 16000)
    )


def _silent_video() -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    return sink.getvalue()


PLAYLISTS = {
    "concat": b"ffconcat version 1.0\nfile 'a.wav'\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///a.ts\n#EXT-X-ENDLIST\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 ::1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
}
CUT = "^the audio is cut off: it has .* of "


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", r"^the audio is empty \(0 bytes\)"),
        (
            b"<html>404</html>",
            "^the audio is in a format that pipemill.* begin with b'<html>404</html>'",
        ),
        (_silent_video(), r"^no audio stream in the file \(mov,mp4.*: video\)"),
        (written("WAV", "PCM_16", seconds=0), "^the audio has no samples"),
        *[(LOSSLESS[f"wav {kind}"][:-9000], CUT) for kind in ("PCM_16", "FLOAT")],
        *[(FILES[name][: len(FILES[name]) // 2], CUT) for name in "flac m4a webm sphere".split()],
        (LOSSY["mp4 5.1"][:-200], "^the audio is (in a format|broken)"),
        *[
            (data, "^the audio is in a format that pipemill does not read")
            for data in PLAYLISTS.values()
        ],
        ({"array": None, "sampling_rate": 16000}, "^the audio is a mapping without array"),
        ({"array": [], "sampling_rate": 16000}, "^the audio has no samples"),
        # ffmpeg gives nothing, either.
        ({"array": [0.5], "sampling_rate": 8000}, "^the audio has no samples, or too few"),
        (encode_wav([0.5], 8000), "^the audio has no samples, or too few"),
        ({"array": [0.1], "sampling_rate": 0}, "^the audio has a sampling rate of 0 Hz"),
        (
            {"array": [1, 2], "sampling_rate": 16000},
            "^the audio's array must hold floats .* not int64",
        ),
        (
            {"array": np.zeros((99, 2)), "sampling_rate": 16000},
            r"array must have shape .* not \(99, 2\)",
        ),
        ({"array": [0.1, float("nan")], "sampling_rate": 16000}, "^the audio has samples.* finite"),
        ({"array": [0.1, float("inf")] * 99, "sampling_rate": 8000}, "^the audio has .* finite"),
    ],
)
def test_what_is_wrong_with_it(value, message):
    with pytest.raises(ValueError, match=message):
        decode_audio(value, 16000)


def test_a_file_with_nan_or_an_absurd_rate():
    data = encode_wav(np.zeros(800), 16000)
    for bad in (float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="^the audio has samples that are not finite"):
            decode_audio(data[:-400] + struct.pack("<f", bad) + data[-396:], 16000)
    with pytest.raises(ValueError, match="^the audio has a sampling rate of 3 Hz"):
        decode_audio(data[:24] + struct.pack("<I", 3) + data[28:], 16000)


def test_a_rate_that_changes_in_the_middle():
    lower = encoded("adts", "aac", 22050, 1)
    lengths = [
        len(decode_audio(data, 16000)) for data in (LOSSY["adts"], lower, LOSSY["adts"] + lower)
    ]
    assert abs(lengths[0] + lengths[1] - lengths[2]) <= 2
    assert lengths[2] > 1.5 * lengths[0]


def _with_broken_packets(every: int) -> bytes:
    """AAC whose every so-manieth packet holds nonsense behind its header."""
    data = bytearray(LOSSY["adts"])
    at = number = 0
    while at < len(data):
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if number % every == every - 1:
            data[at + 7 : at + length] = b"\xff" * (length - 7)
        at, number = at + length, number + 1
    assert number > 15
    return bytes(data)


def test_a_broken_packet_is_left_out_but_not_many():
    with pytest.raises(ValueError, match="^the audio is broken: .* packets do not decode"):
        decode_audio(_with_broken_packets(3), 16000)
    assert len(decode_audio(_with_broken_packets(12), 16000)) < len(
        decode_audio(LOSSY["adts"], 16000)
    )


def test_a_file_longer_than_a_day(monkeypatch):
    monkeypatch.setattr(sys.modules[decode_audio.__module__], "_LONGEST_S", 0.3)
    with pytest.raises(ValueError, match="^the audio is longer than"):
        decode_audio(LOSSLESS["flac"], 16000)


def test_cut_where_no_length_is_stated_is_short():
    for name in ("mp3", "adts"):
        whole = decode_audio(FILES[name], 16000)
        half = decode_audio(FILES[name][: len(FILES[name]) * 2 // 3], 16000)
        assert 0.3 < len(half) / len(whole) < 0.8


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(FILES)), st.data())
def test_broken_files_are_errors_of_the_row(name, draw):
    data = bytearray(FILES[name])
    reach = draw.draw(st.sampled_from([100, len(data)]))  # headers are where it hurts
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, min(reach, len(data)) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.sampled_from([len(data), draw.draw(st.integers(0, len(data)))]))
    _only_errors_of_the_row(bytes(data[:cut]))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_errors_of_the_row(data):
    _only_errors_of_the_row(data)


def _only_errors_of_the_row(data: bytes) -> None:
    try:
        assert np.isfinite(decode_audio(data, 16000)).all()
    except (ValueError, OSError) as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("shape", [(800,), (1, 800), (2, 800), (6, 50)])
def test_wav_is_what_soundfile_reads(shape):
    samples = RNG.standard_normal(shape).astype(np.float32)  # beyond 1 as well
    again, rate = soundfile.read(
        io.BytesIO(encode_wav(samples, 22050)), dtype="float32", always_2d=True
    )
    assert rate == 22050
    np.testing.assert_array_equal(again.T, np.atleast_2d(samples))
    info = soundfile.info(io.BytesIO(encode_wav(samples, 22050)))
    assert (info.format, info.subtype) == ("WAV", "FLOAT")


@pytest.mark.parametrize("samples", [[], [[[0.0]]], [float("nan")], np.zeros((100, 2))])
def test_what_wav_cannot_hold(samples):
    with pytest.raises(ValueError, match="^no WAV of"):
        encode_wav(np.array(samples), 16000)
