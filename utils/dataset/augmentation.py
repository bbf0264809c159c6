"""Random draws for the augmentation of training utterances, and the recordings that augmentation uses.

A draw depends only on (seed, epoch, utterance, effect): not on workers, batches, restarts, or other effects. It is made
in the loader's processes, where recordings are decoded: only the part of a noise recording that is needed is decoded,
at the drawn position, so that even a large folder takes no memory. Noise and impulse response then travel with the
batch, and `net/augmentation.py` applies them on the device. White and pink noise are generated here too, so that a draw
is the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from net.augmentation import samples_at_speed
from utils.config.augmentation import EFFECTS, NOISE_SNR_DB
from utils.config.schema import ExperimentConfig
from utils.data.recordings.augmentation_files import find_augmentation
from utils.data.wav import SAMPLE_RATE_HZ, Crop, Waveform, read_waveform
from utils.dataset.effects import SHORTEST, Effect, apply_effect
from utils.errors import DataError
from utils.registry import choose
from utils.seeding import effect_generator

ONSET = 0.1
"""The direct sound begins where a response first comes within 20 dB of its peak, as in ISO 3382-1."""
LONGEST_RESPONSE = Crop(max_seconds=4.0, position=0.0)
"""Recordings of impulse responses are cut after this; few halls reverberate longer."""
LOWEST_PINK_HZ = 20.0
"""Without this limit, half the power of pink noise would be inaudible."""
NOTHING: Waveform = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class DrawnAugmentation:
    """Augmentation of one utterance.

    Attributes:
        speed: Speed factor; 1 for no change.
        response: Impulse response of unit energy, (samples,), from the direct sound on; empty where there is none.
        noise: Noise of unit power, (samples after the change of speed,); empty where there is none.
        snr_db: Signal-to-noise ratio in dB; meaningless without noise.
    """

    speed: Fraction
    response: Waveform
    noise: Waveform
    snr_db: float


@dataclass(frozen=True)
class Augmenter:
    """Draws the augmentation of training utterances.

    Attributes:
        seed: The run's seed.
        speeds: Speed factors, one of which is drawn for each utterance.
        reverb_prob: Share of utterances that are convolved with an impulse response.
        responses: Recordings of impulse responses.
        noise_prob: Share of utterances to which noise is added.
        noise: `white`, `pink`, or recordings.
        snr_db: Lowest and highest signal-to-noise ratio in dB; the ratio is drawn uniformly between them.
        effects: Effects that every utterance goes through first, with their names.
    """

    seed: int
    speeds: tuple[Fraction, ...] = (Fraction(1),)
    reverb_prob: float = 0.0
    responses: tuple[str, ...] = ()
    noise_prob: float = 0.0
    noise: str | tuple[str, ...] = ()
    snr_db: tuple[float, float] = (0.0, 0.0)
    effects: tuple[tuple[str, Effect], ...] = ()

    def apply_effects(self, epoch: int, utterance: str, samples: Waveform) -> Waveform:
        """Return an utterance's samples, (samples,), after the effects.

        Raises:
            DataError: If an effect fails.
        """
        for name, effect in self.effects:
            generator = effect_generator(name, self.seed, epoch, utterance)
            samples = apply_effect(name, effect, samples, generator, utterance)
        return samples

    def draw(self, epoch: int, utterance: str, samples: int) -> DrawnAugmentation:
        """Return the augmentation of an utterance of the given number of samples.

        Raises:
            DataError: If a recording of noise or of an impulse response cannot be used.
        """
        speed = self._draw_speed(epoch, utterance, samples)
        samples = samples_at_speed(samples, speed)
        response = self._draw_response(epoch, utterance)[:samples]
        return DrawnAugmentation(speed, response, *self._draw_noise(epoch, utterance, samples))

    def _draw_speed(self, epoch: int, utterance: str, samples: int) -> Fraction:
        """Return a speed factor; 1 where the utterance would become too short for a speech encoder."""
        speed = self.speeds[effect_generator("speed", self.seed, epoch, utterance).integers(len(self.speeds))]
        return speed if samples_at_speed(samples, speed) >= SHORTEST else Fraction(1)

    def _draw_response(self, epoch: int, utterance: str) -> Waveform:
        generator = effect_generator("reverb", self.seed, epoch, utterance)
        if generator.random() >= self.reverb_prob:
            return NOTHING
        return read_response(self.responses[generator.integers(len(self.responses))])

    def _draw_noise(self, epoch: int, utterance: str, samples: int) -> tuple[Waveform, float]:
        generator = effect_generator("noise", self.seed, epoch, utterance)
        if generator.random() >= self.noise_prob:
            return NOTHING, 0.0
        snr_db = float(generator.uniform(*self.snr_db))
        if isinstance(self.noise, str):
            noise = make_noise(self.noise, samples, generator)
        else:
            path = self.noise[generator.integers(len(self.noise))]
            noise = read_noise(path, samples, float(generator.random()))
        return _with_unit_power(noise), snr_db


def choose_augmenter(config: ExperimentConfig, seed: int) -> Augmenter | None:
    """Return the augmenter of an experiment's training utterances; None without augmentation.

    Raises:
        DataError: If a folder of noise or of impulse responses cannot be used.
    """
    if not config.augments_waveforms:
        return None
    folders = find_augmentation(config)
    noise = config.augment_noise if isinstance(config.augment_noise, str) else folders.get("augment_noise", ())
    return Augmenter(
        seed,
        speeds=tuple(Fraction(factor).limit_denominator(100) for factor in config.augment_speed or (1.0,)),
        reverb_prob=config.augment_reverb_prob or 0.0,
        responses=folders.get("augment_reverb", ()),
        noise_prob=config.augment_noise_prob or 0.0,
        noise=noise,
        snr_db=config.augment_noise_snr_db or NOISE_SNR_DB,
        effects=tuple((name, choose(EFFECTS, name)) for name in config.augment_effects),
    )


def make_noise(colour: str, samples: int, generator: np.random.Generator) -> Waveform:
    """Return Gaussian noise, (samples,): `white`, or `pink`, whose power falls by 3 dB per octave from 20 Hz up."""
    if colour == "white":
        return generator.standard_normal(samples, dtype=np.float32)
    size = max(1 << (samples - 1).bit_length(), SAMPLE_RATE_HZ)  # fast to transform, and at least 1 s, to hold 20 Hz
    frequencies_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    audible = frequencies_hz >= LOWEST_PINK_HZ
    gain = np.zeros(len(frequencies_hz), dtype=np.float32)
    gain[audible] = 1 / np.sqrt(frequencies_hz[audible])
    white = generator.standard_normal((len(gain), 2), dtype=np.float32).view(np.complex64)[:, 0]
    return np.fft.irfft(gain * white, size)[:samples].astype(np.float32, copy=False)


def read_noise(path: str, samples: int, position: float) -> Waveform:
    """Return a part of a recording, (samples,), beginning at a share of the excess; shorter recordings are repeated."""
    part = Crop((samples + 1) / SAMPLE_RATE_HZ, position)  # one more, since resampling may round down
    return np.resize(_read(path, part), samples)


def read_response(path: str) -> Waveform:
    """Return an impulse response from its direct sound on, scaled to unit energy.

    It thus causes no delay and roughly keeps an utterance's power. Several channels are averaged, as the channels of a
    recording through the same microphones would be.

    Raises:
        DataError: If it is silent.
    """
    response = _read(path, LONGEST_RESPONSE)
    magnitude = np.abs(response)
    if not magnitude.any():
        raise DataError(f"augmentation: {path} is silent; remove it from the folder of impulse responses")
    response = response[int(np.argmax(magnitude >= ONSET * magnitude.max())) :]
    return (response / np.linalg.norm(response.astype(np.float64))).astype(np.float32)


def _read(path: str, part: Crop) -> Waveform:
    try:
        return read_waveform(path, part)
    except DataError as error:
        raise DataError(f"augmentation: {error}") from error


def _with_unit_power(noise: Waveform) -> Waveform:
    """Return noise scaled to unit power; empty where it is silent, since silence cannot reach any ratio."""
    deviation = np.sqrt(np.square(noise, dtype=np.float64).mean())
    return (noise / deviation).astype(np.float32) if deviation > 0 else NOTHING
