"""Audio, decoded as transformers' `ffmpeg_read` decodes it, without an ffmpeg program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .av_container import Unusable, open_container
from .media_libraries import require_media_library

# Hz. A header with another rate is broken, and a resampled second might take gigabytes.
_LOWEST_RATE, _HIGHEST_RATE = 1000, 768_000
_LONGEST_S = 24 * 3600
# Formats whose header states the length. The others are read to their end, wherever that is.
_STATED = ("wav", "w64", "flac", "mov", "caf", "aiff", "au", "nistsphere", "matroska")
_STREAMED_WAV = 0x7FFF0000  # writers that do not know the size state about this, or more


def decode_audio(value: bytes | Mapping[str, Any], sampling_rate: int) -> np.ndarray:
    """Decode audio to mono samples.

    The channels of a file are mixed as FFmpeg mixes them (two: 0.707 of each), those of an array
    by their mean, as transformers does. Packets that do not decode are left out, as FFmpeg does,
    up to a tenth of them.

    Args:
        value: the bytes of a file that FFmpeg reads, which may be a video; or
            {"array": numbers of shape (samples,) or (channels, samples), "sampling_rate": Hz}.
            Whole numbers, which need their type, are read as a WAV file's: int16 as -1 to 1.
        sampling_rate: Hz of the samples to return.

    Returns:
        float32, shape (samples,).

    Raises:
        ValueError: for a file without audio, for no samples or samples that are not finite, and
            for a file that ends before the length that it states. MP3, Ogg and ADTS files state no
            length: cut off, they give fewer samples.
    """
    require_media_library("audio")
    if isinstance(value, Mapping):
        samples = _convert_array(value, sampling_rate)
    else:
        _check_wav_length(value)
        with open_container(value, "audio") as container:
            samples = _decode(container, sampling_rate)
    if len(samples) == 0:
        raise ValueError("the audio has no samples, or too few to resample")
    if not np.isfinite(samples).all():
        raise ValueError("the audio has samples that are not finite (NaN or infinite)")
    return samples


def _decode(container: Any, sampling_rate: int) -> np.ndarray:
    stream = container.streams.best("audio")
    if stream is None:
        streams = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
        raise Unusable(f"no audio stream in the file ({container.format.name}: {streams})")
    stated = _read_stated_seconds(container, stream)
    resampler = Resampler(sampling_rate)
    pieces: list[np.ndarray] = []
    packets = broken = 0
    for packet in container.demux(stream):
        packets += 1
        try:
            frames = packet.decode()
        except Exception:
            broken += 1
            continue
        for frame in frames:
            pieces += resampler.feed(frame)
    pieces += resampler.end()
    # A codec's last frame may be shorter than the header states.
    if resampler.seconds < stated - max(0.1, stated / 100):
        raise Unusable(f"the audio is cut off: it has {resampler.seconds:.2f} s of {stated:.2f} s")
    if broken > packets / 10:
        raise Unusable(f"the audio is broken: {broken} of {packets} packets do not decode")
    return _join(pieces)


class Resampler:
    """Converts frames of any rate and layout to mono float32, by libswresample.

    Attributes:
        rate: Hz of the samples that come out.
        seconds: length of the frames that came in.
    """

    def __init__(self, sampling_rate: int) -> None:
        self.rate, self.seconds = sampling_rate, 0.0
        self._current: Any = None
        self._shape: tuple[str, str, int] | None = None

    def feed(self, frame: Any) -> Iterator[np.ndarray]:
        """Convert a frame, and yield the samples that are ready, shape (samples,)."""
        import av

        if not _LOWEST_RATE <= frame.sample_rate <= _HIGHEST_RATE:
            raise Unusable(_describe_rate(frame.sample_rate))
        self.seconds += frame.samples / frame.sample_rate
        if self.seconds > _LONGEST_S:
            raise Unusable(f"the audio is longer than {_LONGEST_S / 3600:g} hours")
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:  # at the first frame, and where a stream changes
            yield from self.end()
            self._shape = shape
            self._current = av.AudioResampler(format="flt", layout="mono", rate=self.rate)
        yield from _to_arrays(self._current.resample(frame))

    def end(self) -> Iterator[np.ndarray]:
        """Yield the samples that the filter still holds."""
        if self._current is not None:
            yield from _to_arrays(self._current.resample(None))
            self._current = None


def _to_arrays(frames: list[Any]) -> Iterator[np.ndarray]:
    return (frame.to_ndarray()[0].astype(np.float32, copy=False) for frame in frames)


def _join(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _read_stated_seconds(container: Any, stream: Any) -> float:
    """Return the length in seconds that the file states; 0 if it states none."""
    if container.format.name.split(",")[0] not in _STATED:
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # The container's length counts video, which may be longer.
    alone = all(other.type == "audio" for other in container.streams)
    return container.duration / 1e6 if alone and container.duration else 0.0


def _check_wav_length(data: bytes) -> None:
    """Raise ValueError for a WAV that is cut off: FFmpeg would take it for a shorter one."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        stated = int.from_bytes(data[4:8], "little")
        if len(data) - 8 < stated < _STREAMED_WAV:
            raise ValueError(f"the audio is cut off: it has {len(data)} of {stated + 8} bytes")


def _convert_array(value: Mapping[str, Any], sampling_rate: int) -> np.ndarray:
    import av

    if value.get("array") is None or value.get("sampling_rate") is None:
        raise ValueError("the audio is a mapping without array and sampling_rate: it needs both")
    rate = int(value["sampling_rate"])
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise ValueError(_describe_rate(rate))
    samples = _scale(np.asarray(value["array"]))
    if samples.ndim == 2 and 0 < samples.shape[0] <= 64:
        samples = samples.mean(axis=0)
    if samples.ndim != 1:
        raise ValueError(
            "the audio's array must have shape (samples,) or (channels, samples), not "
            f"{samples.shape}"
        )
    samples = samples.astype(np.float32)
    if rate == sampling_rate or len(samples) == 0:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = Resampler(sampling_rate)
    return _join([*resampler.feed(frame), *resampler.end()])


def _scale(samples: np.ndarray) -> np.ndarray:
    """Return whole numbers from -1 to 1, as FFmpeg reads those of a WAV file."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype.name not in ("uint8", "int16", "int32"):
        raise ValueError(
            "the audio's array must hold floats from -1 to 1, or samples of type uint8, int16 or "
            f"int32, not {samples.dtype}"
        )
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    silence = half if samples.dtype.kind == "u" else 0
    return ((samples - silence) / half).astype(np.float32)


def _describe_rate(rate: int) -> str:
    return (
        f"the audio has a sampling rate of {rate} Hz, which is not from {_LOWEST_RATE} to "
        f"{_HIGHEST_RATE}"
    )
