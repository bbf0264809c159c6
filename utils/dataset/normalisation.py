"""Waveform normalisation."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from net.inputs import Waveforms
from utils.data.wav import Waveform, read_waveform

SMALLEST_VARIANCE = 1e-7
"""Added to the variance, as in transformers' `Wav2Vec2FeatureExtractor`."""


@dataclass(frozen=True)
class Normalisation:
    """How a waveform is scaled before the upstream; kept in the checkpoint.

    Attributes:
        kind: `utterance` (each to zero mean and unit variance), `corpus` (by the constants below) or `none`.
        mean: Mean of the training split's samples, for `corpus`.
        deviation: Standard deviation of these samples, for `corpus`.
    """

    kind: str
    mean: float = 0.0
    deviation: float = 1.0

    def __call__(self, samples: Waveform) -> Waveform:
        """Return normalised samples, shape (samples,)."""
        if self.kind == "none":
            return samples
        if self.kind == "corpus":
            mean, deviation = self.mean, self.deviation
        else:
            mean = float(samples.mean(dtype=np.float64))
            deviation = float(np.sqrt(samples.var(dtype=np.float64) + SMALLEST_VARIANCE))
        normalised: Waveform = ((samples - mean) / deviation).astype(np.float32)
        return normalised

    def of_batch(self, waveforms: Waveforms) -> Waveforms:
        """Return the normalised waveforms of a batch, on their device; moments are float64 here too."""
        if self.kind == "none":
            return waveforms
        if self.kind == "corpus":
            return Waveforms((waveforms.samples - self.mean) / self.deviation, waveforms.counts)
        counts = torch.tensor(waveforms.counts).to(waveforms.samples.device, non_blocking=True).unsqueeze(1)
        padded = waveforms.padded()
        mean = padded.sum(1, keepdim=True, dtype=torch.float64) / counts
        power = padded.double().square().sum(1, keepdim=True) / counts
        deviation = ((power - mean.square()).clamp(min=0) + SMALLEST_VARIANCE).sqrt()
        rows = ((padded - mean.float()) / deviation.float()).unbind()
        samples = torch.cat([row[:count] for row, count in zip(rows, waveforms.counts, strict=True)])
        return Waveforms(samples, waveforms.counts)


def measure_corpus(paths: Iterable[str]) -> Normalisation:
    """Return the mean and standard deviation over all samples of the recordings, in float64."""

    def moments(path: str) -> tuple[int, float, float]:
        samples = read_waveform(path).astype(np.float64)
        return len(samples), float(samples.sum()), float(np.square(samples).sum())

    with ThreadPoolExecutor() as pool:
        parts = np.array(list(pool.map(moments, paths)))
    count, total, squares = parts.sum(axis=0)
    mean = total / count
    return Normalisation("corpus", float(mean), float(np.sqrt(max(squares / count - mean**2, SMALLEST_VARIANCE))))
