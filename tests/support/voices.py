"""Synthetic signals that resemble speech."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]


def voice(seconds: float = 1.0, rate_hz: int = 16_000, seed: int = 0) -> Samples:
    """Something like speech: harmonics that come and go, and noise."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    tones = np.sum([np.sin(2 * np.pi * 140 * n * time_s + n) / n for n in range(1, 12)], axis=0)
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time_s))
    mixed: Samples = np.sin(2 * np.pi * 3 * time_s) ** 2 * tones + noise
    mixed *= 0.5 / np.abs(mixed).max()
    return mixed
