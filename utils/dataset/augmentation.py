"""What is drawn for the augmentation of a training utterance, and the recordings that it takes.

A draw depends on (seed, epoch, utterance, effect) alone: not on workers, batches, restarts, or on whether another
effect is on. It is made where recordings are decoded, in the loader's processes: a noise recording is opened at the
drawn place and only the part that is needed is decoded, so that a folder of any size takes no memory. Noise and impulse
response then travel with the batch, and `net/augmentation.py` does the work on the device. White and pink noise are
made here too, so that a draw is the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from net.augmentation import samples_at_speed
from utils.config.augmentation import NOISE_SNR_DB
from utils.config.schema import ExperimentConfig
from utils.data.recordings.augmentation_files import find_augmentation
from utils.data.recordings.survey import SHORTEST_SECONDS
from utils.data.wav import SAMPLE_RATE_HZ, Crop, Waveform, read_waveform
from utils.errors import DataError
from utils.seeding import effect_generator

SHORTEST = round(SHORTEST_SECONDS * SAMPLE_RATE_HZ)
ONSET = 0.1
"""The direct sound begins where a response first comes within 20 dB of its peak, as in ISO 3382-1."""
LONGEST_RESPONSE = Crop(max_seconds=4.0, position=0.0)
"""What comes later in a recording of an impulse response is left out; few halls reverberate longer."""
LOWEST_PINK_HZ = 20.0
"""Half the power of pink noise would otherwise lie where nothing is heard."""
NOTHING: Waveform = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class DrawnAugmentation:
    """What is done to one utterance.

    Attributes:
        speed: Factor; 1 leaves it as it is.
        response: Impulse response, (samples,), from the direct sound on, of unit energy; empty where there is none.
        noise: (samples after the change of speed,), of unit power; empty where there is none.
        snr_db: Signal-to-noise ratio; of no meaning where there is no noise.
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
        speeds: Factors, one of which is drawn for each utterance.
        reverb_prob: Share of utterances that are convolved with an impulse response.
        responses: Recordings of impulse responses.
        noise_prob: Share of utterances that noise is added to.
        noise: `white`, `pink`, or recordings.
        snr_db: Lowest and highest signal-to-noise ratio, drawn evenly in between.
    """

    seed: int
    speeds: tuple[Fraction, ...] = (Fraction(1),)
    reverb_prob: float = 0.0
    responses: tuple[str, ...] = ()
    noise_prob: float = 0.0
    noise: str | tuple[str, ...] = ()
    snr_db: tuple[float, float] = (0.0, 0.0)

    def draw(self, epoch: int, utterance: str, samples: int) -> DrawnAugmentation:
        """Return what is done to an utterance of so many samples.

        Raises:
            DataError: Where a recording of noise or of an impulse response cannot be used.
        """
        speed = self._draw_speed(epoch, utterance, samples)
        samples = samples_at_speed(samples, speed)
        response = self._draw_response(epoch, utterance)[:samples]
        return DrawnAugmentation(speed, response, *self._draw_noise(epoch, utterance, samples))

    def _draw_speed(self, epoch: int, utterance: str, samples: int) -> Fraction:
        """Return a factor; 1 where the utterance would become too short for a speech encoder."""
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
    """Return what augments an experiment's training utterances; None where nothing does.

    Raises:
        DataError: Where a folder of noise or of impulse responses cannot be used.
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
    )


def make_noise(colour: str, samples: int, generator: np.random.Generator) -> Waveform:
    """Return Gaussian noise, (samples,): `white`, or `pink`, whose power falls by 3 dB an octave from 20 Hz on."""
    if colour == "white":
        return generator.standard_normal(samples, dtype=np.float32)
    size = max(1 << (samples - 1).bit_length(), SAMPLE_RATE_HZ)  # a fast size, and a second at least, to hold 20 Hz
    frequencies_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    audible = frequencies_hz >= LOWEST_PINK_HZ
    gain = np.zeros(len(frequencies_hz), dtype=np.float32)
    gain[audible] = 1 / np.sqrt(frequencies_hz[audible])
    white = generator.standard_normal((len(gain), 2), dtype=np.float32).view(np.complex64)[:, 0]
    return np.fft.irfft(gain * white, size)[:samples].astype(np.float32, copy=False)


def read_noise(path: str, samples: int, position: float) -> Waveform:
    """Return a part of a recording, (samples,), beginning at a share of what is left out; a shorter one is repeated."""
    part = Crop((samples + 1) / SAMPLE_RATE_HZ, position)  # one more, for where another rate does not divide
    return np.resize(_read(path, part), samples)


def read_response(path: str) -> Waveform:
    """Return an impulse response from its direct sound on and of unit energy.

    So it delays nothing, and an utterance keeps about its power.
    Several channels are averaged, as a recording through the same microphones would be.

    Raises:
        DataError: Where it is silent.
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
    """Return noise of unit power; none where it is silent, which no ratio can be reached with."""
    deviation = np.sqrt(np.square(noise, dtype=np.float64).mean())
    return (noise / deviation).astype(np.float32) if deviation > 0 else NOTHING
