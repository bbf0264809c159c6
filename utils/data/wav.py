"""Recordings: any format that libsndfile reads, any rate, any channel count → 16 kHz mono float32."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile
import soxr

from utils.data import DataError
from utils.data.shards import open_recording

SAMPLE_RATE_HZ = 16_000
SHORTEST_SECONDS = 0.025
"""The receptive field of the convolutions of WavLM, HuBERT and wav2vec 2.0: 400 samples."""

Waveform = npt.NDArray[np.float32]
"""Samples of one utterance, shape (samples,), 16 kHz mono."""


@dataclass(frozen=True)
class Crop:
    """A part of a recording: at most `max_seconds`, beginning at the share `position` in [0, 1) of what is left out."""

    max_seconds: float
    position: float


def read_waveform(path: str, crop: Crop | None = None) -> Waveform:
    """Decode a recording, mix it down to mono and resample it to 16 kHz.

    Args:
        path: The recording.
        crop: The part to read; all of it where None.

    Returns:
        float32 samples of shape (samples,).

    Raises:
        DataError: Where the file cannot be decoded, is empty or holds values that are not finite.
    """
    try:
        with soundfile.SoundFile(open_recording(path)) as file:
            frames, rate_hz = file.frames, file.samplerate
            count = frames if crop is None else min(frames, round(crop.max_seconds * rate_hz))
            if crop is not None and count < frames:
                file.seek(int(crop.position * (frames - count + 1)))
            samples = file.read(count, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path} cannot be decoded: {error}") from error
    if len(samples) < count:
        raise DataError(f"{path} ends after {len(samples)} of {count} samples; it is truncated, copy it again")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    if len(mono) == 0:
        raise DataError(f"{path} holds no sample; remove it from the labels")
    if not np.isfinite(mono).all():
        raise DataError(f"{path} holds samples that are not finite numbers; repair it or remove it from the labels")
    return np.ascontiguousarray(mono, dtype=np.float32)


def measure_seconds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with `seconds` read from every recording's header.

    Raises:
        DataError: Names the recordings that are missing, unreadable or too short for a speech encoder.
    """
    if "seconds" in table:  # packed recordings were measured when they were packed
        return table
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        found = list(pool.map(_header_seconds, table["path"].to_numpy(dtype=object)))
    problems = [text for text in found if isinstance(text, str)]
    if problems:
        more = f"; {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            f"{table['corpus'].iloc[0]}: {len(problems)} of {len(table)} recordings cannot be used: "
            + "; ".join(problems[:5])
            + more
            + "; repair them or remove them from the labels"
        )
    return table.assign(seconds=np.array(found, dtype=np.float64))


def _header_seconds(path: str) -> float | str:
    """Return the duration, or what is wrong with the recording."""
    try:
        status = os.stat(path)
    except OSError:
        return f"{path} is missing"
    return _read_header(path, status.st_size, status.st_mtime_ns)


@cache
def _read_header(path: str, size: int, modified_ns: int) -> float | str:
    """Read a header once for every state of a file; several experiments share a corpus."""
    try:
        info = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        return f"{path} cannot be read ({error})"
    if is_truncated_riff(path, size):
        return f"{path} is truncated: its header promises more than the {size:,} bytes there are; copy it again"
    seconds = info.frames / info.samplerate
    if seconds < SHORTEST_SECONDS:
        return f"{path} lasts {seconds:g} s, less than {SHORTEST_SECONDS:g} s"
    return float(seconds)


def is_truncated_riff(path: str, size: int) -> bool:
    """Compare a WAV's stated size with its own: libsndfile reads what is there and says nothing."""
    with open(path, "rb") as file:
        header = file.read(12)
    stated = int.from_bytes(header[4:8], "little")
    is_streamed = stated in (0, 0xFFFFFFFF)
    return header[:4] == b"RIFF" and header[8:] == b"WAVE" and not is_streamed and size < stated + 8 - stated % 2
