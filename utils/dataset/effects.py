"""Effects of `augment_effects`: functions from the samples of a training utterance to its changed samples.

They run in the loader's processes after cropping, on one utterance at a time, (samples,) float32 at 16 kHz. They draw
from the generator that they are given, which depends on seed, epoch, utterance and effect alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.data.recordings.survey import SHORTEST_SECONDS
from utils.data.wav import SAMPLE_RATE_HZ, Waveform
from utils.errors import DataError

Effect = Callable[[Waveform, np.random.Generator], Waveform]
SHORTEST = round(SHORTEST_SECONDS * SAMPLE_RATE_HZ)
MOST_GAIN_DB = 6.0


def gain(samples: Waveform, generator: np.random.Generator) -> Waveform:
    """Scale an utterance by a gain that is drawn uniformly from -6 to 6 dB."""
    decibels = generator.uniform(-MOST_GAIN_DB, MOST_GAIN_DB)
    return (samples * np.float32(10 ** (decibels / 20))).astype(np.float32, copy=False)


def apply_effect(
    name: str, effect: Effect, samples: Waveform, generator: np.random.Generator, utterance: str
) -> Waveform:
    """Return the output of an effect.

    Raises:
        DataError: If it fails, or does not return a waveform of an utterance's length.
    """
    try:
        changed = effect(samples, generator)
    except Exception as error:  # noqa: BLE001 - the user's code can fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f'augment_effects: "{name}" fails on {utterance}: {reason}; correct it') from error
    is_waveform = isinstance(changed, np.ndarray) and changed.dtype == np.float32 and changed.ndim == 1
    if not is_waveform or len(changed) < SHORTEST or not np.isfinite(changed).all():
        raise DataError(
            f'augment_effects: "{name}" must return finite float32 samples, (samples,), {SHORTEST} or more; it does '
            f"not for {utterance}"
        )
    return changed
