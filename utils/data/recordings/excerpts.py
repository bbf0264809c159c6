"""Excerpts of a recording, decoded on request, so that hours of it take no more memory than a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr

from utils.data.recordings.audio_source import sound_of
from utils.data.recordings.signal_checks import Cancellation, is_sane
from utils.data.recordings.survey import SHORTEST_SECONDS
from utils.data.wav import SAMPLE_RATE_HZ, Waveform, decoding_errors
from utils.errors import DataError

BLOCK_SECONDS = 10
LONGEST_SECONDS = 300.0
"""Maximum duration of one prediction: the cost of self-attention grows with its square."""


@dataclass(frozen=True)
class Windows:
    """Positions of excerpts.

    Attributes:
        seconds: Length of each excerpt.
        hop_seconds: Distance between the beginnings of consecutive excerpts.

    Raises:
        DataError: If these values are impossible.
    """

    seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        if not SHORTEST_SECONDS <= self.seconds <= LONGEST_SECONDS:
            raise DataError(f"a segment has {SHORTEST_SECONDS} to {LONGEST_SECONDS:.0f} seconds, not {self.seconds:g}")
        if not SHORTEST_SECONDS <= self.hop_seconds < float("inf"):
            raise DataError(f"a hop has {SHORTEST_SECONDS} seconds or more, not {self.hop_seconds:g}")


class Excerpt(NamedTuple):
    """Part of a recording.

    Attributes:
        start: Start in seconds from the beginning of the recording.
        end: End in seconds from the beginning of the recording.
        samples: Waveform, (samples,) float32, 16 kHz mono.
    """

    start: float
    end: float
    samples: Waveform

    @property
    def seconds(self) -> float:
        """Length of the excerpt."""
        return self.end - self.start


def read_windows(path: str, windows: Windows, cancellation: Cancellation | None = None) -> Iterator[Excerpt]:
    """Read a recording as windows that begin every hop, until one reaches its end.

    The last one is as long as the remainder; less than a frame of a speech encoder is dropped.

    Args:
        path: The recording.
        windows: Positions of the windows.
        cancellation: Measure of the loss by mixing channels; None to measure nothing.

    Raises:
        DataError: If the recording cannot be used; channels that cancel are noticed once all of it has been read.
    """
    length, hop = round(windows.seconds * SAMPLE_RATE_HZ), round(windows.hop_seconds * SAMPLE_RATE_HZ)
    kept, offset, start = np.empty(0, np.float32), 0, 0  # `kept` begins at `offset`, the next window at `start`
    end = 0  # end of the last window
    for block in _resampled(path, cancellation or Cancellation()):
        kept = np.concatenate([kept, block])
        while start + length <= offset + len(kept):
            yield _excerpt(kept[start - offset :][:length], start)
            end, start = start + length, start + hop
        drop = min(start - offset, len(kept))
        kept, offset = kept[drop:], offset + drop
    total = offset + len(kept)
    if end < total and total - start >= SHORTEST_SECONDS * SAMPLE_RATE_HZ:
        yield _excerpt(kept[start - offset :], start)


def _excerpt(samples: Waveform, start: int) -> Excerpt:
    return Excerpt(start / SAMPLE_RATE_HZ, (start + len(samples)) / SAMPLE_RATE_HZ, samples.copy())


def _resampled(path: str, cancellation: Cancellation) -> Iterator[Waveform]:
    """Decode a recording block by block to 16 kHz mono."""
    with decoding_errors(path), sound_of(path) as file:
        stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE_HZ, 1, dtype="float32")
        done = 0
        while done < file.frames:
            count = min(BLOCK_SECONDS * file.samplerate, file.frames - done)
            block = file.read(count, dtype="float32", always_2d=True)
            done += len(block)
            if len(block) < count:
                raise DataError(f"{path} ends after {done} of {file.frames} samples; it is truncated, copy it again")
            mono = block.mean(axis=1)
            if not is_sane(mono):
                raise DataError(f"{path} contains samples that are not finite numbers; repair it")
            if file.channels > 1:
                cancellation.add(block.T, mono)
            yield stream.resample_chunk(mono, last=done == file.frames)
    if cancellation.problem is not None:
        raise DataError(f"{path} {cancellation.problem.text}")
