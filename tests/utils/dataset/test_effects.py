from __future__ import annotations

import numpy as np
import pytest

from utils.data.wav import Waveform
from utils.dataset.augmentation import Augmenter
from utils.dataset.effects import Effect, apply_effect, gain
from utils.errors import DataError

SAMPLES = np.sin(np.arange(1600, dtype=np.float32) / 7)
Generator = np.random.Generator


def test_a_gain_is_drawn_between_its_bounds_and_keeps_the_form() -> None:
    gains = [gain(SAMPLES, np.random.default_rng(seed))[5] / SAMPLES[5] for seed in range(300)]
    decibels = 20 * np.log10(gains)
    assert -6 <= decibels.min() < -5.5
    assert 5.5 < decibels.max() <= 6
    assert np.corrcoef(gain(SAMPLES, np.random.default_rng(0)), SAMPLES)[0, 1] == pytest.approx(1)


def test_effects_follow_their_order_and_depend_on_seed_epoch_and_utterance_alone() -> None:
    def append(samples: Waveform, generator: Generator) -> Waveform:
        return np.append(samples, np.float32(generator.random()))

    augmenter = Augmenter(3, effects=(("double", lambda samples, _: 2 * samples), ("append", append)))
    changed = augmenter.apply_effects(1, "a.wav", SAMPLES)
    np.testing.assert_array_equal(changed[:-1], 2 * SAMPLES)
    assert changed[-1] == augmenter.apply_effects(1, "a.wav", SAMPLES[:800])[-1]
    others = [augmenter.apply_effects(2, "a.wav", SAMPLES)[-1], augmenter.apply_effects(1, "b.wav", SAMPLES)[-1]]
    assert changed[-1] not in others


@pytest.mark.parametrize(
    ("effect", "sentence"),
    [
        (lambda samples, generator: samples / 0, "finite float32 samples"),
        (lambda samples, generator: samples.astype(np.float64), "finite float32 samples"),
        (lambda samples, generator: samples[:10], "400 or more"),
        (lambda samples, generator: None, "finite float32 samples"),
        (lambda samples, generator: samples[5000], '"mine" fails on C/a.wav: IndexError'),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_an_effect_that_returns_no_waveform_is_one_sentence(effect: Effect, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        apply_effect("mine", effect, SAMPLES, np.random.default_rng(0), "C/a.wav")
