"""Exact properties of each effect, against torchaudio, NumPy and arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
import torchaudio.functional as audio
from torch import Tensor

from net.augmentation import (
    Augmentation,
    _reach,
    _speed_filters,
    add_noise,
    augment,
    change_speed,
    reverberate,
    samples_at_speed,
)
from net.inputs import Waveforms
from tests.support.waiting import watch_waiting

SAMPLE_RATE_HZ = 16_000
SPEEDS = [Fraction(9, 10), Fraction(11, 10), Fraction(1, 2), Fraction(2), Fraction(99, 100), Fraction(199, 100)]


def random_pieces(*counts: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(counts))
    return [torch.randn(count, generator=generator) for count in counts]


def end_to_end(*pieces: Tensor) -> Waveforms:
    return Waveforms(torch.cat(pieces), tuple(map(len, pieces)))


def augmentation(
    utterances: int,
    speeds: list[Fraction] | None = None,
    responses: list[Tensor] | None = None,
    noise: list[Tensor] | None = None,
    snr_db: tuple[float, ...] = (),
) -> Augmentation:
    nothing = [torch.zeros(0)] * utterances
    factors = tuple(speeds or [Fraction(1)] * utterances)
    return Augmentation(factors, end_to_end(*(responses or nothing)), end_to_end(*(noise or nothing)), tensor(snr_db))


def tensor(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("factor", SPEEDS)
def test_speed_is_that_of_torchaudio_and_its_lengths_follow_the_formula(factor: Fraction) -> None:
    pieces = random_pieces(16_000, 401, 9_999, 12_345, 1)
    changed = change_speed(pieces, factor)
    for piece, found in zip(pieces, changed, strict=True):
        expected, _ = audio.speed(piece, 100, float(factor) + 1e-9)  # it cuts 100 · factor off to a whole number
        assert len(found) == samples_at_speed(len(piece), factor) == len(expected)
        assert torch.allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("factor", SPEEDS)
def test_the_filters_are_the_impulse_responses_of_torchaudio_to_the_bit(factor: Fraction) -> None:
    step, outputs, reach = factor.numerator, factor.denominator, _reach(factor)
    block = -(-reach // step)
    first = block * step - reach
    responses = audio.resample(torch.eye(first + 2 * reach + step), step, outputs)
    expected = responses[first:, block * outputs : (block + 1) * outputs]
    assert torch.equal(_speed_filters(factor, torch.device("cpu")).squeeze(1), expected.t())


def test_reverberation_and_noise_are_those_of_torchaudio_to_the_bit() -> None:
    pieces, responses, noise = random_pieces(3_000, 3_073), random_pieces(1_024, 700), random_pieces(3_000, 3_073)
    padded, filters, added = (torch.nn.utils.rnn.pad_sequence(rows, True) for rows in (pieces, responses, noise))
    ratios = tensor((5.0, 17.5))
    wet, noisy = audio.fftconvolve(padded, filters), audio.add_noise(padded, added, ratios)
    assert wet.shape[1] == 4_096, "a size that FFTs are made for"
    for found, expected in ((reverberate(pieces, responses), wet), (add_noise(pieces, noise, ratios), noisy)):
        assert all(torch.equal(row, other[: len(row)]) for row, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("factor", [Fraction(9, 10), Fraction(11, 10)])
def test_the_frequency_of_a_sine_moves_by_the_factor(factor: Fraction) -> None:
    time = torch.arange(2 * SAMPLE_RATE_HZ, dtype=torch.float64) / SAMPLE_RATE_HZ
    (found,) = change_speed([torch.sin(2 * torch.pi * 1_000 * time).float()], factor)
    assert len(found) == -(-2 * SAMPLE_RATE_HZ * factor.denominator // factor.numerator)
    windowed = found.numpy() * np.hanning(len(found))
    peak_hz = np.argmax(np.abs(np.fft.rfft(windowed, 2**20))) * SAMPLE_RATE_HZ / 2**20
    assert peak_hz == pytest.approx(1_000 * float(factor), abs=0.1)


def test_a_unit_impulse_is_the_identity_and_a_delayed_pair_an_echo() -> None:
    pieces = random_pieces(8_000, 3_001)
    impulse, pair = torch.tensor([1.0]), torch.zeros(1_001)
    pair[0], pair[1_000] = 0.8, 0.6
    same, echoed = reverberate(pieces, [impulse, pair])
    assert torch.allclose(same, pieces[0], atol=1e-5)
    expected = 0.8 * pieces[1]
    expected[1_000:] += 0.6 * pieces[1][:-1_000]
    assert torch.allclose(echoed, expected, atol=1e-5)


def test_reverberation_is_the_convolution_cut_to_the_utterance() -> None:
    pieces, responses = random_pieces(5_000, 16_000), random_pieces(700, 4_000)
    for piece, response, found in zip(pieces, responses, reverberate(pieces, responses), strict=True):
        expected = np.convolve(piece.double().numpy(), response.double().numpy())[: len(piece)]
        assert np.abs(found.numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_noise_is_at_the_drawn_ratio() -> None:
    pieces = [0.01 * piece for piece in random_pieces(16_000, 3_000, 700)]
    noise = [random_pieces(16_001)[0][1:], torch.zeros(0), random_pieces(701)[0][1:]]
    found = augment(end_to_end(*pieces), augmentation(3, noise=noise, snr_db=(5.0, 17.5))).split()
    assert torch.equal(found[1], pieces[1]), "no noise was drawn for it"
    for place, snr_db in ((0, 5.0), (2, 17.5)):
        added = found[place].double() - pieces[place].double()
        ratio = pieces[place].double().square().mean() / added.square().mean()
        assert 10 * float(torch.log10(ratio)) == pytest.approx(snr_db, abs=0.01)


def test_a_silent_utterance_stays_silent() -> None:
    noise = random_pieces(100)
    found = augment(end_to_end(torch.zeros(100)), augmentation(1, noise=noise, snr_db=(5.0,)))
    assert torch.equal(found.samples, torch.zeros(100))


def mixture() -> Iterator[tuple[Tensor, Fraction, Tensor, Tensor, float | None]]:
    """Utterances with every combination of effects."""
    nothing = torch.zeros(0)
    for number in range(12):
        piece, response, noise = random_pieces(2_000 + 137 * number, 300 + number, 5_000 - number)
        speed = [Fraction(1), Fraction(9, 10), Fraction(11, 10)][number % 3]
        has_noise = number % 4 >= 2
        length = samples_at_speed(len(piece), speed)
        yield (
            piece,
            speed,
            response if number % 2 else nothing,
            noise[:length] if has_noise else nothing,
            10.0 if has_noise else None,
        )


def test_effects_follow_each_other_and_neighbours_change_nothing() -> None:
    pieces, speeds, responses, noise, ratios = (list(column) for column in zip(*mixture(), strict=True))
    snr_db = tuple(ratio for ratio in ratios if ratio is not None)
    together = augment(end_to_end(*pieces), augmentation(12, speeds, responses, noise, snr_db))
    assert together.counts == tuple(samples_at_speed(len(p), s) for p, s in zip(pieces, speeds, strict=True))
    for number, found in enumerate(together.split()):
        piece, speed, response, added, ratio = (c[number] for c in (pieces, speeds, responses, noise, ratios))
        one = augmentation(1, [speed], [response], [added], () if ratio is None else (ratio,))
        alone = augment(end_to_end(piece), one).samples
        assert torch.allclose(found, alone, atol=1e-5 * float(alone.abs().max()))
        expected = audio.speed(piece, 100, float(speed) + 1e-9)[0]
        if len(response):
            expected = audio.fftconvolve(expected, response)[: len(expected)]
        if ratio is not None:
            expected = audio.add_noise(expected, added, torch.tensor(ratio))
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max())), number


@pytest.mark.gpu
def test_augmentation_never_waits_for_the_device(cuda: torch.device) -> None:
    pieces, speeds, responses, noise, ratios = (list(column) for column in zip(*mixture(), strict=True))
    snr_db = tuple(ratio for ratio in ratios if ratio is not None)
    drawn, waveforms = augmentation(12, speeds, responses, noise, snr_db), end_to_end(*pieces)
    expected = augment(waveforms, drawn)
    on_device, samples = drawn.to(cuda), waveforms.to(cuda)
    augment(samples, on_device)  # filters and plans are made once
    with watch_waiting() as places:
        found = augment(samples, on_device)
    assert not places
    assert found.counts == expected.counts
    assert torch.allclose(found.samples.cpu(), expected.samples, atol=1e-4)
