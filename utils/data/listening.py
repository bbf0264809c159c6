"""What the samples of a recording are like, decoded block by block so that an hour takes no more memory than a word."""

from __future__ import annotations

import hashlib
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

BLOCK_FRAMES = 1 << 18
"""16 s at 16 kHz: most utterances are one block."""
CLIPPED_RUN = 3
"""Fewer samples in a row at a recording's own maximum or minimum are an ordinary peak."""
SMOOTH_DROP = 6
"""A smooth peak that is rounded to three equal samples falls by five steps of the rounding at most in the next one."""
LOUDEST = 2.0**31
"""Full scale of 32-bit integers that were written as they are. What is louder is no audio, and its squares overflow."""
LOUD_PEAK = 0.1
"""Only recordings that reach this share of full scale count as clipped: quiet ones have few different values."""
EXACT_IN_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8")
LOSSLESS = (*EXACT_IN_16_BITS, "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
"""Lossy codecs bend the flat tops of what they were given."""

Numbers = npt.NDArray[Any]


class Problem(NamedTuple):
    """Why a recording cannot be trained on: one of the kinds of an audit, and a sentence."""

    kind: str
    text: str


class Sound(NamedTuple):
    """What decoding showed.

    Attributes:
        peak: Largest absolute sample, 1 at full scale.
        swing: Half the distance between the largest and the smallest sample: 0 where all are equal.
        clipped: Share of the samples in flat tops: runs at the recording's own maximum or minimum.
        silent_end: Whether the second half holds nothing but zeros.
        content: Hash of the samples, the same however they are encoded.
    """

    peak: float
    swing: float
    clipped: float
    silent_end: bool
    content: str


class Extreme(NamedTuple):
    """The largest or smallest sample of one channel of a block, and how many samples lie in flat tops there."""

    level: float
    flat: int


def listen(file: soundfile.SoundFile) -> tuple[Sound | None, Problem | None]:
    """Decode a file that has just been opened, and look at its samples."""
    is_exact, is_judged = file.subtype in EXACT_IN_16_BITS, file.subtype in LOSSLESS
    heard, silent_end, content = 0, True, hashlib.sha256()
    blocks: list[list[tuple[Extreme, Extreme]]] = []
    while heard < file.frames:
        wanted = min(BLOCK_FRAMES, file.frames - heard)
        samples = file.read(out=_room(wanted, file.channels, is_exact))
        if len(samples) < wanted:
            ends = f"it ends after {heard + len(samples):,} of {file.frames:,} samples"
            return None, Problem("truncated", f"is truncated: {ends}")
        if not is_exact and not is_sane(samples):
            return None, Problem("not-finite", "holds samples that are no finite numbers of any scale of audio")
        silent_end = silent_end and not samples[max(0, file.frames // 2 - heard) :].any()
        _add(content, samples)
        blocks.append([_extremes(channel, is_judged) for channel in samples.T])
        heard += wanted
    file.seek(heard // 2)  # as crops do; where it fails, training would too
    if len(file.read(1)) < 1:
        return None, Problem("unreadable", "cannot be read from its middle on")
    low = min(pair[0].level for block in blocks for pair in block)
    high = max(pair[1].level for block in blocks for pair in block)
    clipped = max(_flat(channel) for channel in zip(*blocks, strict=True)) / file.frames
    return Sound(max(-low, high), (high - low) / 2, clipped, silent_end, content.hexdigest()[:32]), None


def is_sane(samples: Numbers) -> bool:
    """Whether all samples are finite numbers of a scale that audio can have."""
    return bool((np.abs(samples) <= LOUDEST).all())


_rooms = threading.local()


def _room(frames: int, channels: int, is_exact: bool) -> Numbers:
    """Return memory to decode into, the same for every file of a thread: new memory costs more than decoding."""
    kind, values = np.int16 if is_exact else np.float32, frames * channels
    room: Numbers | None = getattr(_rooms, kind.__name__, None)
    if room is None or len(room) < values:
        room = np.empty(max(values, BLOCK_FRAMES), dtype=kind)
        setattr(_rooms, kind.__name__, room)
    return room[:values].reshape(frames, channels)


def _add(content: hashlib._Hash, samples: Numbers) -> None:
    """Add a block, shape (frames, channels), to a hash: as 16 bits where they hold it, equal channels as one."""
    if samples.shape[1] > 1 and (samples == samples[:, :1]).all():
        samples = samples[:, :1]
    if samples.dtype != np.int16:
        scaled = samples * np.float32(32768)
        if scaled.min() >= -32768 and scaled.max() <= 32767 and (scaled == np.rint(scaled)).all():
            samples = scaled.astype(np.int16)
    content.update(f"{samples.dtype} {samples.shape[1]}".encode())
    content.update(np.ascontiguousarray(samples).data)


def _extremes(channel: Numbers, is_judged: bool) -> tuple[Extreme, Extreme]:
    full = 32768.0 if channel.dtype == np.int16 else 1.0
    low, high = channel.min(), channel.max()
    is_judged = is_judged and max(-float(low), float(high)) >= LOUD_PEAK * full
    flat = [flat_samples(channel, level) if is_judged else 0 for level in (low, high)]
    return Extreme(float(low) / full, flat[0]), Extreme(float(high) / full, flat[1])


def _flat(blocks: tuple[tuple[Extreme, Extreme], ...]) -> int:
    """Count the samples in flat tops of one channel: those of the blocks that reach its extremes."""
    low, high = min(block[0].level for block in blocks), max(block[1].level for block in blocks)
    at_low = sum(block[0].flat for block in blocks if block[0].level == low)
    return at_low + sum(block[1].flat for block in blocks if block[1].level == high)


def flat_samples(samples: Numbers, level: float | np.number[Any]) -> int:
    """Count the samples, shape (samples,), in runs at a level that the signal comes to or leaves with a bend.

    Rounding makes runs at smooth peaks, too; the signal leaves those by a few steps of the rounding at a time.
    """
    places = np.flatnonzero(samples == level)
    if len(places) < CLIPPED_RUN:
        return 0
    starts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    lengths = np.diff(starts, append=len(places))
    firsts, lengths = places[starts][lengths >= CLIPPED_RUN], lengths[lengths >= CLIPPED_RUN]
    if not len(firsts):
        return 0
    exact = samples.astype(np.float64)
    around = exact[np.maximum(firsts - 1, 0)], exact[np.minimum(firsts + lengths, len(exact) - 1)]
    drops = np.abs(np.stack(around) - float(level)).max(axis=0)
    steps = np.abs(np.diff(exact))
    return int(lengths[drops > SMOOTH_DROP * steps[steps > 0].min(initial=np.inf)].sum())
