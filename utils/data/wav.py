"""Decoding of recordings of any format that libsndfile reads, any rate and channel count, to 16 kHz mono float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from utils.data.recordings.audio_source import sound_of
from utils.data.recordings.signal_checks import Cancellation, is_sane
from utils.errors import DataError

SAMPLE_RATE_HZ = 16_000
Waveform = npt.NDArray[np.float32]
"""Samples of one utterance, shape (samples,), 16 kHz mono."""


@dataclass(frozen=True)
class Crop:
    """A part of a recording: at most `max_seconds`, beginning at the share `position` in [0, 1) of the excess."""

    max_seconds: float
    position: float


@contextmanager
def decoding_errors(path: str) -> Iterator[None]:
    """Turn errors of decoding a recording into a `DataError`."""
    try:
        yield
    except (OSError, MemoryError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} cannot be decoded: {str(error) or 'there is not enough memory'}") from error


def read_waveform(path: str, crop: Crop | None = None, cancellation: Cancellation | None = None) -> Waveform:
    """Decode a recording, mix it down to mono and resample it to 16 kHz.

    Args:
        path: The recording.
        crop: The part to read; everything if None.
        cancellation: Measure of the loss by mixing; if given, channels that cancel in the mix are an error. Training
            recordings do not need it, as they were examined before.

    Returns:
        float32 samples of shape (samples,).

    Raises:
        DataError: If the file cannot be decoded, is empty, or has values that are not finite or channels that cancel.
    """
    with decoding_errors(path):
        with sound_of(path) as file:
            frames, rate_hz = file.frames, file.samplerate
            count = frames if crop is None else min(frames, round(crop.max_seconds * rate_hz))
            if crop is not None and count < frames:
                file.seek(int(crop.position * (frames - count + 1)))
            samples = file.read(count, dtype="float32", always_2d=True)
        mono = mix = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if rate_hz != SAMPLE_RATE_HZ and len(samples) == count:
            mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    if len(samples) < count:
        raise DataError(f"{path} ends after {len(samples)} of {count} samples; it is truncated, copy it again")
    if len(mono) == 0:
        raise DataError(f"{path} contains no samples; remove it from the labels")
    if not is_sane(mono):
        raise DataError(f"{path} contains samples that are not finite numbers; repair it or remove it from the labels")
    if cancellation is not None and samples.shape[1] > 1:
        cancellation.add(samples.T, mix)
        if cancellation.problem is not None:
            raise DataError(f"{path} {cancellation.problem.text}")
    return np.ascontiguousarray(mono, dtype=np.float32)
