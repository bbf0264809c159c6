"""SYNTHETIC voices for the demo's corpus: prosody drawn for an emotion code, made audible by a source-filter model.

The model is that of G. Fant, "Acoustic Theory of Speech Production", 1960: glottal pulses and breath noise, filtered
by the formants of a vocal tract. The effect of emotions on the voice follows the reviews of R. Banse and K. Scherer,
"Acoustic profiles in vocal emotion expression", Journal of Personality and Social Psychology, 1996, and of P. Juslin
and P. Laukka, "Communication of emotions in vocal expression", Psychological Bulletin, 2003.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter, sosfilt  # type: ignore[import-untyped]

from utils.data.wav import SAMPLE_RATE_HZ

VERSION = 1
"""Incremented with every audible change; part of the seed of every random number."""
Samples = npt.NDArray[np.float64]
"""One value per sample, shape (samples,), 16 kHz."""

PETERSON_BARNEY_HZ = np.array(
    [
        [270, 2290, 3010],
        [390, 1990, 2550],
        [530, 1840, 2480],
        [660, 1720, 2410],
        [730, 1090, 2440],
        [570, 840, 2410],
        [440, 1020, 2240],
        [300, 870, 2240],
        [640, 1190, 2390],
    ]
)
"""Mean F1 to F3 of men's vowels in heed, hid, head, had, hod, hawed, hood, who'd and hud: G. Peterson and H. Barney,
"Control Methods Used in a Study of the Vowels", JASA 24, 1952, table II."""
HIGHER_FORMANTS_HZ = (3500, 4500)
"""F4 and F5 of a uniform tube of 17.5 cm, (2n - 1) · 500 Hz (Fant, 1960)."""
BANDWIDTHS_HZ = np.array([60.0, 90.0, 150.0, 200.0, 250.0])
"""Near D. Klatt's defaults, "Software for a cascade/parallel formant synthesizer", JASA 67, 1980."""


@dataclass(frozen=True)
class Prosody:
    """Prosody of a clip.

    Attributes:
        level: Mean pitch relative to the speaker's own, semitones.
        swing: Standard deviation of the pitch accents, semitones.
        rise: Rise in pitch from the first syllable to the last, semitones.
        rate: Syllables per second.
        effort: Vocal effort from 0, whisper, to 1, shout: shorter glottal opening, flatter spectrum, less breath,
            more open vowels (J. Huber et al., "Formants of children, women, and men: the effects of vocal intensity
            variation", JASA 106, 1999).
        smile: From -1, corners of the mouth down, to 1, spread lips: higher formants and more open vowels
            (V. Tartter, "Happy talk", Perception & Psychophysics, 1980).
        loudness: Level relative to the average clip, dB.
        tremor: Depth of a 5.5 Hz vibration of the pitch, semitones.
        jitter: Relative standard deviation of the glottal cycle's length; a third of that of its amplitude.
    """

    level: float
    swing: float
    rise: float
    rate: float
    effort: float
    smile: float
    loudness: float
    tremor: float
    jitter: float


MEANS: Mapping[str, Prosody] = {
    "N": Prosody(0.0, 1.4, -1.0, 4.2, 0.48, 0.0, 0.0, 0.05, 0.008),
    "H": Prosody(5.0, 3.0, 2.0, 5.0, 0.58, 0.85, 3.5, 0.05, 0.008),
    "A": Prosody(5.0, 2.3, -3.5, 5.6, 0.92, -0.65, 8.0, 0.05, 0.035),
    "S": Prosody(-3.0, 0.6, -2.5, 2.7, 0.16, -0.55, -6.0, 0.25, 0.015),
    "U": Prosody(6.0, 3.5, 6.0, 4.4, 0.60, 0.30, 3.0, 0.05, 0.008),
    "F": Prosody(6.0, 1.2, 0.5, 5.6, 0.35, -0.40, 0.0, 0.60, 0.030),
    "D": Prosody(-1.5, 1.6, -3.5, 3.2, 0.62, -0.75, 1.0, 0.05, 0.030),
    "C": Prosody(-0.5, 2.2, -4.0, 3.5, 0.66, -0.25, 0.0, 0.05, 0.010),
}
SPREAD = Prosody(0.9, 0.30, 0.9, 0.30, 0.055, 0.18, 1.1, 0.04, 0.004)
"""Standard deviation of each prosody parameter among clips of one code."""
LOWEST = Prosody(-6.0, 0.2, -9.0, 2.2, 0.05, -1.2, -9.0, 0.0, 0.002)
HIGHEST = Prosody(10.0, 5.0, 9.0, 6.8, 0.98, 1.2, 9.0, 1.0, 0.050)


@dataclass(frozen=True)
class Speaker:
    """A voice: its mean pitch in Hz, and its formants relative to those of an average man."""

    pitch_hz: float
    formant_scale: float


@dataclass(frozen=True)
class Syllables:
    """Start and duration in seconds, peak amplitude, and vowel index of each syllable; all (syllables,)."""

    starts: Samples
    lengths: Samples
    peaks: Samples
    vowels: npt.NDArray[np.int64]

    @property
    def centres(self) -> Samples:
        """Middle of each syllable in seconds, (syllables,)."""
        return self.starts + self.lengths / 2


def draw_speaker(number: int) -> Speaker:
    """Return the voice with this number: odd ones have a man's pitch and vocal tract, even ones a woman's.

    Women's formants are about a sixth higher (Peterson and Barney, 1952).
    """
    generator = np.random.default_rng([VERSION, 99, number])
    pitch_hz, scale = (115.0, 1.0) if number % 2 else (200.0, 1.16)
    deviations = np.clip(generator.standard_normal(2), -1.5, 1.5)
    return Speaker(pitch_hz * 2 ** float(deviations[0] / 12), scale * (1 + 0.015 * float(deviations[1])))


def draw_prosody(code: str, generator: np.random.Generator) -> Prosody:
    """Draw the prosody of a clip of an emotion code; O and X lie between two other codes."""
    means = {name: np.array(astuple(prosody)) for name, prosody in MEANS.items()}
    one, other = generator.choice(list(MEANS), 2, replace=False)
    share = generator.uniform(0.3, 0.7)
    mean = means[code] if code in means else share * means[one] + (1 - share) * means[other]
    drawn = mean + np.array(astuple(SPREAD)) * generator.standard_normal(len(mean))
    return Prosody(*np.clip(drawn, astuple(LOWEST), astuple(HIGHEST)).tolist())


def speak(prosody: Prosody, speaker: Speaker, generator: np.random.Generator) -> Samples:
    """Return a clip of 1.2 to 2.6 s, in [-1, 1], shape (samples,)."""
    seconds = generator.uniform(1.2, 2.6)
    instants = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    syllables = draw_syllables(prosody, seconds, generator)
    pitch_hz = speaker.pitch_hz * 2 ** (intonation(prosody, syllables, instants, generator) / 12)
    source = voice_source(prosody, pitch_hz, generator) * envelope(syllables, instants)
    scale = speaker.formant_scale * (1 + 0.12 * prosody.smile)
    first_scale = scale * (1 + 0.20 * prosody.smile)
    speech = through_vocal_tract(source, syllables, instants, first_scale, scale)
    speech = speech / np.sqrt(np.mean(speech**2)) + 0.3 * consonants(syllables, instants, generator)
    return record(speech, prosody.loudness, generator)


def draw_syllables(prosody: Prosody, seconds: float, generator: np.random.Generator) -> Syllables:
    """Lay syllables out over a clip; about every sixth is followed by a pause."""
    count = int(seconds * prosody.rate * 2) + 4
    lengths = np.exp(0.2 * generator.standard_normal(count)) / prosody.rate
    is_pause = generator.random(count) < 1 / 6
    gaps = np.where(is_pause, generator.uniform(0.1, 0.25, count), 0.0)
    starts = generator.uniform(0.03, 0.12) + np.cumsum(lengths + gaps) - lengths - gaps
    kept = (starts + lengths < seconds - 0.03) | (np.arange(count) < 1)
    vowels = generator.choice(len(PETERSON_BARNEY_HZ), 4, replace=False)[generator.integers(0, 4, count)]
    peaks = generator.uniform(0.6, 1.0, count)
    return Syllables(starts[kept], lengths[kept], peaks[kept], vowels[kept])


def intonation(prosody: Prosody, syllables: Syllables, instants: Samples, generator: np.random.Generator) -> Samples:
    """Return the pitch relative to the speaker's own in semitones, (samples,): level, rise, accents, tremor."""
    centres = syllables.centres
    accents = np.clip(generator.standard_normal(len(centres)), -2, 2)
    course = np.linspace(-0.5, 0.5, len(centres)) if len(centres) > 1 else np.zeros(1)
    knots = prosody.level + prosody.rise * course + prosody.swing * (accents - accents.mean())
    phase = 2 * np.pi * (5.5 * instants + generator.random())
    return np.asarray(np.interp(instants, centres, knots) + prosody.tremor * np.sin(phase))


def voice_source(prosody: Prosody, pitch_hz: Samples, generator: np.random.Generator) -> Samples:
    """Return the glottal source including breath noise, at unit level, (samples,).

    Args:
        prosody: Its jitter perturbs every cycle; its effort shortens the opening and flattens the spectrum.
        pitch_hz: Fundamental frequency, (samples,).
        generator: Random generator of the clip.
    """
    cycles = np.cumsum(pitch_hz / SAMPLE_RATE_HZ).astype(np.int64)
    jitter, shimmer = generator.standard_normal((2, cycles[-1] + 1))
    phase = np.cumsum(pitch_hz * (1 + prosody.jitter * jitter[cycles]) / SAMPLE_RATE_HZ) % 1
    flow = rosenberg_pulse(phase, 0.85 - 0.40 * prosody.effort) * (1 + 3 * prosody.jitter * shimmer[cycles])
    pole = 0.85 - 0.85 * prosody.effort
    voiced = lfilter([1.0], [1.0, -pole], np.diff(flow, prepend=flow[0]))
    breath = generator.standard_normal(len(flow)) * flow * (0.03 + 0.45 * (1 - prosody.effort) ** 3)
    return np.asarray(voiced / np.std(voiced) + breath)


def rosenberg_pulse(phase: Samples, open_share: float) -> Samples:
    """Return the glottal flow in [0, 1] at phases of the cycle in [0, 1), both (samples,).

    A raised cosine while the glottis opens, a quarter of a cosine in half that time while it closes, then zero: the
    pulse preferred in A. Rosenberg, "Effect of Glottal Pulse Shape on the Quality of Natural Vowels", JASA 49, 1971.
    """
    opening, closing = open_share * 2 / 3, open_share / 3
    rising = 0.5 * (1 - np.cos(np.pi * phase / opening))
    falling = np.cos(0.5 * np.pi * (phase - opening) / closing)
    return np.where(phase < opening, rising, np.where(phase < open_share, falling, 0.0))


def envelope(syllables: Syllables, instants: Samples) -> Samples:
    """Return the syllables' amplitude, (samples,)."""
    amplitude = np.zeros(len(instants))
    for start, length, peak in zip(syllables.starts, syllables.lengths, syllables.peaks, strict=True):
        part = slice(*np.searchsorted(instants, (start, start + length)))
        amplitude[part] = peak * np.sin(np.pi * (instants[part] - start) / length) ** 0.6
    return amplitude


def through_vocal_tract(
    source: Samples, syllables: Syllables, instants: Samples, first_scale: float, scale: float
) -> Samples:
    """Filter a source by each vowel of the clip and crossfade between syllables, (samples,).

    Args:
        source: Glottal source, (samples,).
        syllables: Times and vowels of the syllables.
        instants: Time of each sample in seconds, (samples,).
        first_scale: Factor of F1.
        scale: Factor of the higher formants.
    """
    edges = syllables.starts[:, None] + syllables.lengths[:, None] * np.array([0.2, 0.8])
    sounding = np.repeat(syllables.vowels, 2)
    speech = np.zeros(len(source))
    for vowel in np.unique(syllables.vowels):
        formants_hz = scale * np.array([*PETERSON_BARNEY_HZ[vowel], *HIGHER_FORMANTS_HZ])
        formants_hz[0] *= first_scale / scale
        share = np.interp(instants, edges.ravel(), (sounding == vowel).astype(np.float64))
        speech += share * sosfilt(resonators(formants_hz, BANDWIDTHS_HZ), source)
    return speech


def resonators(formants_hz: Samples, bandwidths_hz: Samples) -> npt.NDArray[np.float64]:
    """Return Klatt's (1980) digital resonators in cascade as second-order sections, (formants, 6)."""
    radius = np.exp(-np.pi * bandwidths_hz / SAMPLE_RATE_HZ)
    first = -2 * radius * np.cos(2 * np.pi * formants_hz / SAMPLE_RATE_HZ)
    zero, one = np.zeros(len(radius)), np.ones(len(radius))
    return np.stack([1 + first + radius**2, zero, zero, one, first, radius**2], axis=1)


def consonants(syllables: Syllables, instants: Samples, generator: np.random.Generator) -> Samples:
    """Return noisy onsets of 80 ms at about every other syllable, (samples,)."""
    amplitude = np.zeros(len(instants))
    for start in syllables.starts[generator.random(len(syllables.starts)) < 0.5]:
        part = slice(*np.searchsorted(instants, (start - 0.05, start + 0.03)))
        amplitude[part] = np.hanning(part.stop - part.start)
    hiss = np.diff(generator.standard_normal(len(instants) + 1))
    centre_hz = np.array([generator.uniform(2500, 6000)])
    shaped = sosfilt(resonators(centre_hz, np.array([1500.0])), hiss)
    return np.asarray(amplitude * shaped / np.std(shaped))


def record(speech: Samples, loudness_db: float, generator: np.random.Generator) -> Samples:
    """Return speech as recorded for a podcast: coloured, with noise at 18 to 40 dB SNR, at a random gain, unclipped."""
    coloured = lfilter([1.0, generator.uniform(-0.1, 0.1)], [1.0], speech)
    noise = lfilter([1.0], [1.0, -0.9], generator.standard_normal(len(speech)))
    snr_db = generator.uniform(18, 40)
    mixed = coloured / np.std(coloured) + noise / np.std(noise) * 10 ** (-snr_db / 20)
    level_db = -27 + loudness_db + generator.standard_normal()
    mixed = (mixed - mixed.mean()) * 10 ** (level_db / 20)
    return np.asarray(mixed * min(1.0, 0.9 / np.abs(mixed).max()))
