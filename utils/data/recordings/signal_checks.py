"""Checks of a recording's samples, decoded block by block so that an hour takes no more memory than a word."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

BLOCK_FRAMES = 1 << 18
"""16 s at 16 kHz: most utterances fit into one block."""
CLIPPED_RUN = 3
"""Fewer samples in a row at a recording's own maximum or minimum are an ordinary peak."""
SMOOTH_DROP = 6
"""A smooth peak rounded to three equal samples falls by at most five rounding steps in the next sample."""
LOUDEST = 2.0**31
"""Full scale of 32-bit integers written without scaling. Anything louder is not audio, and its squares overflow."""
LOUD_PEAK = 0.1
"""Only recordings that reach this share of full scale count as clipped: quiet ones have few distinct values."""
EXACT_IN_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8")
LOSSLESS = (*EXACT_IN_16_BITS, "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
"""Only these formats preserve flat tops; lossy codecs bend them."""
CANCELLED_DB = 50.0
"""Channels cancel if their mix is this much quieter: only rounding and codec noise is left. A signal and 0.99 of its
opposite, still audible once normalised, lose 43 dB."""
FAINT_DB = 10.0
"""Unrelated channels lose 0 dB; a signal and its opposite, encoded as Ogg Vorbis, still lose 10 dB."""
LEAST_STEP = 1 / 32768
"""Opposite 16-bit samples that were rounded down add up to one step."""
INAUDIBLE = 1e-4
"""Root mean square of a mix, 1 at full scale, below which its channels themselves are silent."""

Numbers = npt.NDArray[Any]


class Problem(NamedTuple):
    """Reason why a recording cannot be trained on: one of the kinds of an audit, and a sentence."""

    kind: str
    text: str


class Sound(NamedTuple):
    """Findings from decoding.

    Attributes:
        peak: Largest absolute sample of the mix of all channels, which is the models' input, 1 at full scale.
        swing: Half the difference between the largest and the smallest sample of the mix: 0 if all are equal.
        clipped: Share of a channel's samples in flat tops: runs at its own maximum or minimum. The channel with the
            highest share counts: mixing rounds flat tops off without repairing them.
        silent_end: Whether the second half of the mix is all zeros.
        cancelled_db: Loss by channels that cancel in the mix, as `Cancellation.decibels` returns it.
        content: Hash of the samples, the same however they are encoded.
    """

    peak: float
    swing: float
    clipped: float
    silent_end: bool
    cancelled_db: float
    content: str


class Extreme(NamedTuple):
    """The largest or smallest sample of one channel of a block, and the number of samples in flat tops there."""

    level: float
    flat: int


@dataclass
class Cancellation:
    """Measures block by block how much of a recording's channels is lost by mixing.

    Attributes:
        mixed: Sum of the squares of the mix, without its mean.
        unrelated: The sum expected for unrelated channels: that of all channels divided by their number squared.
        samples: Number of samples added so far, per channel.
    """

    mixed: float = 0.0
    unrelated: float = 0.0
    samples: int = 0

    def add(self, channels: Numbers, mix: Numbers, repeats: int = 1) -> None:
        """Add a block.

        Args:
            channels: Channels of the block, (channels, samples), 1 at full scale.
            mix: Mean of the channels, (samples,).
            repeats: Number of times the recording contains each of the channels.
        """
        self.samples += len(mix)
        self.mixed += _energy(mix)
        self.unrelated += sum(map(_energy, channels)) / (len(channels) ** 2 * repeats)

    @property
    def decibels(self) -> float:
        """How many dB quieter the mix is than that of unrelated channels; 0 if it is not, or they are silent."""
        if self.unrelated <= self.samples * INAUDIBLE**2 or self.unrelated <= self.mixed:
            return 0.0
        return float(10 * np.log10(self.unrelated / self.mixed)) if self.mixed else float("inf")

    @property
    def problem(self) -> Problem | None:
        """Reason why the recording cannot be used, if almost nothing is left of it."""
        if self.decibels < CANCELLED_DB:
            return None
        return Problem(
            "cancelling",
            "has channels that cancel: their mix is silence; keep one of them (sox IN.wav OUT.wav remix 1)",
        )


def _energy(samples: Numbers) -> float:
    centred = samples - samples.mean()
    return float(np.dot(centred, centred))


def listen(file: soundfile.SoundFile) -> tuple[Sound | None, Problem | None]:
    """Decode a file that has just been opened, and examine its samples.

    Returns:
        The findings, None if the recording has no end, and the reason why the recording cannot be used, if any.
    """
    is_exact, is_judged = file.subtype in EXACT_IN_16_BITS, file.subtype in LOSSLESS
    done, silent_end, content = 0, True, hashlib.sha256()
    blocks: list[list[tuple[Extreme, Extreme]]] = []
    cancellation, mixes = Cancellation(), list[tuple[float, float]]()
    while done < file.frames:
        wanted = min(BLOCK_FRAMES, file.frames - done)
        samples = file.read(out=_room(wanted, file.channels, is_exact))
        if len(samples) < wanted:
            ends = f"it ends after {done + len(samples):,} of {file.frames:,} samples"
            return None, Problem("truncated", f"is truncated: {ends}")
        if not is_exact and not is_sane(samples):
            return None, Problem("not-finite", "contains samples that are not finite numbers of any scale of audio")
        channels = _distinct(samples)
        _add(content, channels.T)
        extremes = [_extremes(channel, is_judged) for channel in channels]
        if len(channels) == 1:
            mix = channels[0]
            mixes.append((extremes[0][0].level, extremes[0][1].level))
            if file.channels > 1:
                _mix(channels, cancellation, repeats=file.channels)
            extremes *= file.channels
        else:
            mix = _mix(channels, cancellation)
            mixes.append((float(mix.min()), float(mix.max())))
        silent_end = silent_end and _is_zero(mix[max(0, file.frames // 2 - done) :], is_mixed=len(channels) > 1)
        blocks.append(extremes)
        done += wanted
    file.seek(done // 2)  # as crops do; if it fails, training would too
    if len(file.read(1)) < 1:
        return None, Problem("unreadable", "cannot be read beyond its middle")
    low, high = min(pair[0] for pair in mixes), max(pair[1] for pair in mixes)
    clipped = max(_flat(channel) for channel in zip(*blocks, strict=True)) / file.frames
    peak, swing, lost = max(-low, high), (high - low) / 2, cancellation.decibels
    return Sound(peak, swing, clipped, silent_end, lost, content.hexdigest()[:32]), cancellation.problem


def _is_zero(samples: Numbers, is_mixed: bool) -> bool:
    return not (np.abs(samples) > LEAST_STEP if is_mixed else samples).any()


def _distinct(samples: Numbers) -> Numbers:
    """Return the channels of a block, shape (frames, channels), one after another, with equal ones merged."""
    if samples.shape[1] == 1:
        return samples.T
    channels = np.ascontiguousarray(samples.T)
    return channels[:1] if all(np.array_equal(channels[0], other) for other in channels[1:]) else channels


def _mix(channels: Numbers, cancellation: Cancellation, repeats: int = 1) -> Numbers:
    """Return the mix of a block's channels, 1 at full scale, and add its loss to `cancellation`."""
    scaled = channels.astype(np.float32)
    if channels.dtype == np.int16:
        scaled *= np.float32(1 / 32768)
    mix: Numbers = scaled.mean(axis=0)
    cancellation.add(scaled, mix, repeats)
    return mix


def is_sane(samples: Numbers) -> bool:
    """Whether all samples are finite numbers on a scale possible for audio."""
    return bool((np.abs(samples) <= LOUDEST).all())


_rooms = threading.local()


def _room(frames: int, channels: int, is_exact: bool) -> Numbers:
    """Return a buffer for decoding, reused for all files of a thread: new memory costs more than decoding."""
    kind, values = np.int16 if is_exact else np.float32, frames * channels
    room: Numbers | None = getattr(_rooms, kind.__name__, None)
    if room is None or len(room) < values:
        room = np.empty(max(values, BLOCK_FRAMES), dtype=kind)
        setattr(_rooms, kind.__name__, room)
    return room[:values].reshape(frames, channels)


def _add(content: hashlib._Hash, samples: Numbers) -> None:
    """Add a block, shape (frames, distinct channels), to a hash: as 16-bit samples if they represent it exactly."""
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
    """Count the samples in flat tops of one channel, in the blocks that reach its extremes."""
    low, high = min(block[0].level for block in blocks), max(block[1].level for block in blocks)
    at_low = sum(block[0].flat for block in blocks if block[0].level == low)
    return at_low + sum(block[1].flat for block in blocks if block[1].level == high)


def flat_samples(samples: Numbers, level: float | np.number[Any]) -> int:
    """Count the samples, shape (samples,), in runs at a level that the signal enters or leaves with a bend.

    Rounding makes runs at smooth peaks, too; the signal leaves these by a few rounding steps at a time.
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
