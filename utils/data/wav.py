"""Recordings: any format that libsndfile reads, any rate, any channel count → 16 kHz mono float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile
import soxr

from utils.data import DataError
from utils.data.recordings import survey
from utils.data.shards import open_recording

SAMPLE_RATE_HZ = 16_000
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
    corpus = str(table["corpus"].iloc[0])
    found = survey(corpus, table["path"].tolist()).table
    problems = (found["path"] + " " + found["problem"]).dropna().tolist()
    if problems:
        more = f"; {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            f"{corpus}: {len(problems)} of {len(table)} recordings cannot be used: {'; '.join(problems[:5])}{more}; "
            "repair them or remove them from the labels"
        )
    return table.assign(seconds=found["seconds"].to_numpy())
