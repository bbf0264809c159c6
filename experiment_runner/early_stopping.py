"""Hybrid early stopping: on the smoothed development score, and on the development loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALLEST_IMPROVEMENT = 1e-9


@dataclass(frozen=True)
class Decision:
    """What follows from one epoch.

    Attributes:
        epoch: Counted from 1.
        smoothed: Mean of the last `window` scores.
        improved: Whether the model is saved as best.
        stop: Why training ends here: `sma_f1`, `loss` or None.
        explanation: The same in words.
    """

    epoch: int
    smoothed: float
    improved: bool
    stop: str | None
    explanation: str


class HybridEarlyStopping:
    """Decides after each epoch whether to save and whether to stop.

    With S the mean of the last `window` scores (fewer while fewer exist), L the development loss:

    1. S above its best so far (by more than 1e-9): the epoch is saved. Otherwise training stops (`sma_f1`), or, with
       `patience` N, at the (N + 1)-th consecutive epoch without improvement.
    2. L above `loss_stop_ratio` × the smallest earlier L: training stops (`loss`), after the saving.
    3. Neither stops before epoch `min_epochs`.

    Args:
        window: Scores in the mean.
        min_epochs: First epoch that may stop.
        loss_stop_ratio: Factor on the smallest loss of the epochs before.
        patience: Epochs without improvement that are forgiven.
    """

    def __init__(self, window: int, min_epochs: int, loss_stop_ratio: float, patience: int) -> None:
        self.window = window
        self.min_epochs = min_epochs
        self.loss_stop_ratio = loss_stop_ratio
        self.patience = patience
        self.scores: list[float] = []
        self.smallest_loss = math.inf
        self.best = -math.inf
        self.best_epoch = 0
        self.epochs_without_improvement = 0

    def update(self, loss: float, score: float) -> Decision:
        """Judge one more epoch.

        Args:
            loss: Development loss.
            score: Development macro-F1, mean CCC, or their mean.

        Raises:
            FloatingPointError: Where either is not finite.
        """
        epoch = len(self.scores) + 1
        if not (math.isfinite(loss) and math.isfinite(score)):
            raise FloatingPointError(
                f"epoch {epoch}: development loss {loss} and score {score} must be finite; lower learning_rate, and "
                "look for constant labels in the development split"
            )
        self.scores.append(score)
        smoothed = math.fsum(self.scores[-self.window :]) / len(self.scores[-self.window :])
        improved = smoothed > self.best + SMALLEST_IMPROVEMENT
        reasons = self._judge(epoch, loss, smoothed, improved)
        stop = reasons[-1][0] if reasons and epoch >= self.min_epochs else None
        return Decision(epoch, smoothed, improved, stop, self._explain(epoch, improved, reasons))

    def _judge(self, epoch: int, loss: float, smoothed: float, improved: bool) -> list[tuple[str, str]]:
        """Update the state and return the rules that ask to stop, the loss's last."""
        reasons = []
        if improved:
            self.best, self.best_epoch, self.epochs_without_improvement = smoothed, epoch, 0
        else:
            self.epochs_without_improvement += 1
            text = f"smoothed score {smoothed:.4f} does not exceed {self.best:.4f} of epoch {self.best_epoch}"
            if self.patience:
                text += f" ({self.epochs_without_improvement} in a row, patience {self.patience})"
            if self.epochs_without_improvement > self.patience:
                reasons.append(("sma_f1", text))
        if loss > self.loss_stop_ratio * self.smallest_loss:
            reasons.append(("loss", f"loss {loss:.4f} exceeds {self.loss_stop_ratio:g} x {self.smallest_loss:.4f}"))
        self.smallest_loss = min(self.smallest_loss, loss)
        return reasons

    def _explain(self, epoch: int, improved: bool, reasons: list[tuple[str, str]]) -> str:
        parts = ["saved as best" if improved else "not saved"]
        if reasons and epoch >= self.min_epochs:
            parts.append("stop: " + "; ".join(text for _, text in reasons))
        elif reasons:
            parts.append(f"no stop before epoch {self.min_epochs}, though " + "; ".join(text for _, text in reasons))
        elif not improved:
            parts.append(f"no improvement {self.epochs_without_improvement} times, patience {self.patience}")
        return "; ".join(parts)
