from __future__ import annotations

import math
import random

import pytest

from experiment_runner.training.early_stopping import HybridEarlyStopping

FLAT = 1.0
# scores F, losses L (flat where absent), keys, epoch that stops (None: all epochs are used), reason, epoch saved last
CASES: list[tuple[str, list[float], list[float] | None, dict[str, float], int | None, str | None, int]] = [
    ("constant scores, summed in floating point", [0.1, 0.1, 0.1], None, {"min_epochs": 3}, 3, "sma_f1", 1),
    ("the mean falls after the score did", [0.2, 0.8, 0.7, 0.3], None, {}, 4, "sma_f1", 3),
    ("loss rises past the ratio while scores rise", [0.1, 0.2, 0.3], [1.00, 1.04, 1.08], {}, 3, "loss", 3),
    ("loss exactly at the ratio goes on", [0.1, 0.2], [1.00, 1.05], {}, None, None, 2),
    ("both rules fire: the loss is the reason", [0.5, 0.4], [1.00, 1.06], {}, 2, "loss", 1),
    ("patience forgives two", [0.5, 0.4, 0.4, 0.4], None, {"patience": 2}, 4, "sma_f1", 1),
    ("first epoch always improves", [0.0], None, {}, None, None, 1),
    ("a negative first score improves on nothing", [-0.5], None, {}, None, None, 1),
    ("second epoch equal stops", [0.3, 0.3], None, {}, 2, "sma_f1", 1),
    ("an improvement of 1e-9 or less is none", [0.3, 0.3 + 1e-9], None, {"window": 1}, 2, "sma_f1", 1),
    ("an improvement just above 1e-9 is one", [0.3, 0.3 + 3e-9], None, {"window": 1}, None, None, 2),
    ("always rising uses all epochs", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], None, {}, None, None, 7),
    ("the window forgets: 0.1 leaves the mean", [0.1, 0.5, 0.5, 0.5, 0.5, 0.5], None, {}, None, None, 6),
    ("after that the mean is constant", [0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], None, {}, 7, "sma_f1", 6),
    ("window 1 is the plain score", [0.4, 0.6, 0.5], None, {"window": 1}, 3, "sma_f1", 2),
    ("window 2", [0.4, 0.6, 0.5, 0.4], None, {"window": 2}, 4, "sma_f1", 3),
    ("min_epochs holds back the score's rule", [0.5, 0.4, 0.3, 0.2], None, {"min_epochs": 4}, 4, "sma_f1", 1),
    ("min_epochs holds back the loss's rule", [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], {"min_epochs": 3}, 3, "loss", 3),
    ("a dip before min_epochs may recover", [0.5, 0.2, 0.9, 0.9], None, {"min_epochs": 3, "window": 1}, 4, "sma_f1", 3),
    ("the smallest earlier loss counts, not the last", [0.1, 0.2, 0.3, 0.4], [1.0, 0.8, 0.83, 0.85], {}, 4, "loss", 4),
    ("a falling loss never stops", [0.1, 0.2, 0.3], [3.0, 2.0, 1.0], {}, None, None, 3),
    ("a wider ratio", [0.1, 0.2, 0.3], [1.0, 1.4, 1.6], {"loss_stop_ratio": 1.5}, 3, "loss", 3),
    ("patience starts afresh", [0.5, 0.4, 0.9, 0.1, 0.1], None, {"patience": 1, "window": 1}, 5, "sma_f1", 3),
    ("patience does not hold back the loss", [0.5, 0.4], [1.0, 1.2], {"patience": 5}, 2, "loss", 1),
    ("patience counts early epochs too", [0.5, 0.4, 0.3, 0.2], None, {"patience": 1, "min_epochs": 4}, 4, "sma_f1", 1),
]  # fmt: skip


@pytest.mark.parametrize(("title", "scores", "losses", "keys", "stops", "reason", "saved"), CASES)
def test_worked_sequences(
    title: str,
    scores: list[float],
    losses: list[float] | None,
    keys: dict[str, float],
    stops: int | None,
    reason: str | None,
    saved: int,
) -> None:
    settings = {"window": 5, "min_epochs": 0, "loss_stop_ratio": 1.05, "patience": 0, **keys}
    stopping = HybridEarlyStopping(**settings)  # type: ignore[arg-type]
    last_saved, ended, found = 0, None, None
    for epoch, (score, loss) in enumerate(zip(scores, losses or [FLAT] * len(scores), strict=True), start=1):
        decision = stopping.update(loss, score)
        assert decision.epoch == epoch
        last_saved = epoch if decision.improved else last_saved
        if decision.stop:
            ended, found = epoch, decision.stop
            break
    assert (ended, found, last_saved) == (stops, reason, saved), title


@pytest.mark.parametrize(("loss", "score"), [(float("nan"), 0.5), (float("inf"), 0.5), (1.0, float("nan"))])
def test_figures_that_are_not_finite_end_the_experiment(loss: float, score: float) -> None:
    with pytest.raises(FloatingPointError, match="must be finite"):
        HybridEarlyStopping(5, 0, 1.05, 0).update(loss, score)


def test_the_explanation_says_what_was_decided_and_why() -> None:
    stopping = HybridEarlyStopping(5, 0, 1.05, 0)
    assert stopping.update(1.0, 0.5).explanation == "saved as best"
    text = stopping.update(1.2, 0.3).explanation
    assert "smoothed score 0.4000 does not exceed 0.5000 of epoch 1" in text
    assert "loss 1.2000 exceeds 1.05 x 1.0000" in text


def test_the_rule_is_said_in_words_before_it_decides() -> None:
    assert HybridEarlyStopping(5, 0, 1.05, 0).rule == (
        "early stopping: training ends at the first epoch whose mean development score over the last 5 epochs is "
        "not a new best, or whose development loss exceeds 1.05 times its smallest before; never before epoch 2 "
        "(min_epochs = 0 has no effect)"
    )
    patient = HybridEarlyStopping(1, 12, 3.0, 2).rule
    assert "whose development score is not a new best 3 times in a row, or" in patient
    assert patient.endswith("exceeds 3 times its smallest before; never before epoch 12 (min_epochs = 12)")


def test_the_ending_is_said_in_words_with_its_figures() -> None:
    stopping = HybridEarlyStopping(5, 0, 1.05, 0)
    assert stopping.update(1.0, 0.5).ending == ""
    assert stopping.update(1.2, 0.3).ending == (
        "the mean development score over the last 5 epochs, 0.4000, is not a new best (the best is 0.5000, of "
        "epoch 1); "
        "the development loss, 1.2000, exceeds 1.05 times its smallest before, 1.0000"
    )
    patient = HybridEarlyStopping(1, 0, 1.05, 1)
    endings = [patient.update(1.0, score).ending for score in (0.5, 0.4, 0.3)]
    assert endings == [
        "",
        "",
        "the development score, 0.3000, is not a new best 2 times in a row (the best is 0.5000, of epoch 1)",
    ]
    held_back = HybridEarlyStopping(5, 3, 1.05, 0)
    assert [held_back.update(loss, 0.5).ending for loss in (1.0, 2.0)] == ["", ""], "where it goes on there is none"


@pytest.mark.parametrize(
    ("epoch", "most", "advice"),
    [
        (2, 30, "min_epochs = 7 would train until epoch 7 at least"),
        (9, 30, "min_epochs = 18 would train until epoch 18 at least"),
        (29, 30, "min_epochs = 30 would train until epoch 30 at least"),
        (30, 30, ""),
    ],
)
def test_the_advice_names_a_key_that_goes_on(epoch: int, most: int, advice: str) -> None:
    assert HybridEarlyStopping(5, 0, 1.05, 0).advice(epoch, most) == advice


def simulate(min_epochs: int, trainings: int = 10_000) -> list[int]:
    """Return at which of 30 epochs trainings end that gain .01 an epoch, with a noise of .02."""
    draw = random.Random(0)
    ends = []
    for _ in range(trainings):
        stopping = HybridEarlyStopping(5, min_epochs, 1.05, 0)
        scores = (0.5 + 0.01 * epoch + draw.gauss(0, 0.02) for epoch in range(1, 31))
        ends.append(next((d.epoch for d in (stopping.update(FLAT, score) for score in scores) if d.stop), 30))
    return ends


def test_noise_ends_as_many_trainings_as_the_readme_warns() -> None:
    ends = simulate(min_epochs=0)
    by_noise_alone = 0.5 * (1 + math.erf(-0.01 / (0.02 * math.sqrt(2)) / math.sqrt(2)))  # the second score is lower
    assert by_noise_alone == pytest.approx(0.362, abs=0.0005)
    assert ends.count(2) / len(ends) == pytest.approx(by_noise_alone, abs=0.015)
    assert sum(end <= 5 for end in ends) / len(ends) == pytest.approx(2 / 3, abs=0.02)
    held_back = simulate(min_epochs=10, trainings=2000)
    assert min(held_back) == 10
    assert held_back.count(10) / len(held_back) == pytest.approx(0.04, abs=0.015)
