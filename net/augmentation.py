"""Waveform augmentation of a batch on its device: speed, then reverberation, then noise.

The order is the physical one: the speaker, the room, the noise at the microphone. The effects of each utterance have
already been drawn (`utils/dataset/augmentation.py`). Nothing is drawn here, no result depends on other utterances
except for rounding, and nothing waits for the device. Each effect is computed for all of its utterances at once,
padded; between effects utterances are views, so that the number of kernels does not grow with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from net.inputs import Waveforms, pad_end

ZERO_CROSSINGS = 6
"""Zero crossings on each side of a speed filter's sinc."""
ROLLOFF = 0.99
"""Cut-off frequency of the speed filters, as a share of the lower Nyquist frequency."""


@dataclass(frozen=True)
class Augmentation:
    """The effects applied to the utterances of a batch.

    Attributes:
        speeds: Speed factor of each utterance, known on the host; 1 leaves it unchanged.
        responses: Impulse response of each utterance; zero samples for an utterance without one.
        noise: Noise of each utterance, as long as it is after the change of speed and of unit power; zero samples for
            an utterance without noise.
        snr_db: Signal-to-noise ratios of the utterances with noise, in batch order, (noisy utterances,).
    """

    speeds: tuple[Fraction, ...]
    responses: Waveforms
    noise: Waveforms
    snr_db: Tensor

    def to(self, device: torch.device) -> Augmentation:
        """Copy to a device, without waiting where the memory is pinned."""
        snr_db = self.snr_db.to(device, non_blocking=True)
        return Augmentation(self.speeds, self.responses.to(device), self.noise.to(device), snr_db)

    def pin_memory(self) -> Augmentation:
        """Move to page-locked memory."""
        return Augmentation(self.speeds, self.responses.pin_memory(), self.noise.pin_memory(), self.snr_db.pin_memory())


def augment(waveforms: Waveforms, augmentation: Augmentation) -> Waveforms:
    """Return the augmented waveforms; a change of speed changes their sample counts."""
    pieces = waveforms.split()
    for factor in sorted(set(augmentation.speeds) - {Fraction(1)}):
        _change([speed == factor for speed in augmentation.speeds], pieces, partial(change_speed, factor=factor))
    responses = [piece for piece in augmentation.responses.split() if len(piece)]
    _change(augmentation.responses.counts, pieces, partial(reverberate, responses=responses))
    noise = [piece for piece in augmentation.noise.split() if len(piece)]
    _change(augmentation.noise.counts, pieces, partial(add_noise, noise=noise, snr_db=augmentation.snr_db))
    return Waveforms(torch.cat(pieces), tuple(map(len, pieces)))


def _change(
    chosen: Sequence[int], pieces: list[Tensor], effect: Callable[[Sequence[Tensor]], Sequence[Tensor]]
) -> None:
    """Replace the chosen utterances by the output of an effect that is applied to all of them at once."""
    places = [place for place, is_chosen in enumerate(chosen) if is_chosen]
    if places:
        for place, changed in zip(places, effect([pieces[place] for place in places]), strict=True):
            pieces[place] = changed


def samples_at_speed(samples: int, factor: Fraction) -> int:
    """Return the length of an utterance after a change of speed: samples / factor, rounded up."""
    return -(-samples * factor.denominator // factor.numerator)


def change_speed(pieces: Sequence[Tensor], factor: Fraction) -> list[Tensor]:
    """Play utterances `factor` times as fast; duration and pitch change together.

    Source: T. Ko et al., "Audio augmentation for speech recognition", Interspeech 2015. The samples are those of
    `torchaudio.functional.speed`; the counts are known on the host.
    """
    counts = [len(piece) for piece in pieces]
    step, reach = factor.numerator, _reach(factor)
    blocks = -(-max(counts) // step)
    padded = F.pad(pad_end(pieces, blocks * step), (reach, reach))
    changed = F.conv1d(padded.unsqueeze(1), _speed_filters(factor, padded.device), stride=step)
    return _cut(changed.transpose(1, 2).flatten(1), [samples_at_speed(count, factor) for count in counts])


def _reach(factor: Fraction) -> int:
    """Return how many samples a filter reaches beyond its block: a little over 6 zero crossings at the cut-off."""
    return -(-7 * factor.numerator // min(factor.numerator, factor.denominator))


@cache
def _speed_filters(factor: Fraction, device: torch.device) -> Tensor:
    """Return a sinc under a Hann window for each output sample of a block, (denominator, 1, 2 reach + numerator).

    The operations and their order are those of `torchaudio.functional.resample`, whose filters these equal bit for bit.
    They are built only once, since copying them to the device waits for it.

    Source: J. O. Smith, "Digital Audio Resampling Home Page", https://ccrma.stanford.edu/~jos/resample/.
    """
    step, outputs = factor.numerator, factor.denominator
    cutoff = ROLLOFF * min(step, outputs)
    width = math.ceil(ZERO_CROSSINGS * step / cutoff)
    taps = torch.arange(-width, width + step, dtype=torch.float32) / step
    crossings = (torch.arange(0, -outputs, -1, dtype=torch.float32).unsqueeze(1) / outputs + taps) * cutoff
    crossings = crossings.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(crossings * math.pi / ZERO_CROSSINGS / 2) ** 2
    angle = crossings * math.pi
    filters = torch.where(angle == 0, 1.0, angle.sin() / angle) * (window * (cutoff / step))
    rest = _reach(factor) - width
    return F.pad(filters.unsqueeze(1), (rest, rest)).to(device)


def reverberate(pieces: Sequence[Tensor], responses: Sequence[Tensor]) -> list[Tensor]:
    """Convolve each utterance with its impulse response; the reverberation after an utterance's end is cut off."""
    counts = [len(piece) for piece in pieces]
    longest = max(len(response) for response in responses)
    size = _fast_size(max(counts) + longest - 1)
    dry, filters = pad_end(pieces, size), pad_end(responses, size)
    return _cut(torch.fft.irfft(torch.fft.rfft(dry) * torch.fft.rfft(filters), n=size), counts)


def _fast_size(least: int) -> int:
    """Return the next 2^k or 3 · 2^k: such sizes are fast, and so few that each FFT plan is made only once."""
    power = 1 << (least - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= least else power


def add_noise(pieces: Sequence[Tensor], noise: Sequence[Tensor], snr_db: Tensor) -> list[Tensor]:
    """Add noise at a signal-to-noise ratio; a silent utterance stays silent.

    Both powers are means over all samples of the utterance, pauses included.

    Args:
        pieces: Utterances.
        noise: Noise of the same lengths, none of it silent.
        snr_db: Signal-to-noise ratios, (utterances,).
    """
    counts = [len(piece) for piece in pieces]
    clean, added = pad_end(pieces, max(counts)), pad_end(noise, max(counts))
    clean_energy, noise_energy = (torch.linalg.vector_norm(rows, dim=-1) ** 2 for rows in (clean, added))
    present_db = 10 * (torch.log10(clean_energy) - torch.log10(noise_energy))
    return _cut(clean + 10 ** ((present_db - snr_db) / 20).unsqueeze(-1) * added, counts)


def _cut(padded: Tensor, counts: Sequence[int]) -> list[Tensor]:
    return [row[:count] for row, count in zip(padded.unbind(), counts, strict=True)]
