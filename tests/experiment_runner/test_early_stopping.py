from __future__ import annotations

import pytest

from experiment_runner.early_stopping import HybridEarlyStopping

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
