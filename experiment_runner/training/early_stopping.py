"""Hybrid early stopping: on the smoothed development score, and on the development loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALLEST_IMPROVEMENT = 1e-9


@dataclass(frozen=True)
class Decision:
    """Outcome of one epoch.

    Attributes:
        epoch: Counted from 1.
        smoothed: Mean of the last `window` scores.
        improved: Whether the model is saved as the best.
        stop: Rule that ends training here: `sma_f1`, `loss` or None.
        explanation: All of this in words.
        ending: Why training ends here, for a reader who does not know the rules; empty if it continues.
    """

    epoch: int
    smoothed: float
    improved: bool
    stop: str | None
    explanation: str
    ending: str = ""


class HybridEarlyStopping:
    """Decides after each epoch whether to save and whether to stop.

    S is the mean of the last `window` scores (fewer while fewer exist), and L the development loss:

    1. If S exceeds its best so far by more than 1e-9, the epoch is saved. Otherwise training stops (`sma_f1`), or,
       with `patience` N, stops at the (N + 1)-th consecutive epoch without improvement.
    2. If L exceeds `loss_stop_ratio` × the smallest earlier L, training stops (`loss`), after saving.
    3. Neither rule stops training before epoch `min_epochs`.

    Args:
        window: Number of scores in the mean.
        min_epochs: First epoch at which training may stop.
        loss_stop_ratio: Factor on the smallest loss of earlier epochs.
        patience: Consecutive epochs without improvement that are tolerated.
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
            FloatingPointError: If either is not finite.
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
        ending = "; ".join(self._in_words(name, loss, smoothed) for name, _ in reasons) if stop else ""
        self.smallest_loss = min(self.smallest_loss, loss)
        return Decision(epoch, smoothed, improved, stop, self._explain(epoch, improved, reasons), ending)

    @property
    def rule(self) -> str:
        """The stopping rules in one sentence, shown when training starts."""
        times = f" {self.patience + 1} times in a row" if self.patience else ""
        first = max(self.min_epochs, 2)
        held_back = f"min_epochs = {self.min_epochs}" + " has no effect" * (self.min_epochs <= 2)
        return (
            f"early stopping: training ends at the first epoch whose {self._score} is not a new best{times}, or whose "
            f"development loss exceeds {self.loss_stop_ratio:g} times its smallest before; never before epoch {first} "
            f"({held_back})"
        )

    def advice(self, epoch: int, most: int) -> str:
        """Say which key would have let a training continue that ended at an epoch.

        Args:
            epoch: Epoch at which it ended.
            most: Maximum number of epochs.
        """
        longer = min(max(2 * epoch, epoch + self.window), most)
        return f"min_epochs = {longer} would train until epoch {longer} at least" if longer > epoch else ""

    @property
    def _score(self) -> str:
        return "development score" if self.window == 1 else f"mean development score over the last {self.window} epochs"

    def _in_words(self, name: str, loss: float, smoothed: float) -> str:
        """Say why a rule asks to stop, with its numbers; `smallest_loss` still excludes the current epoch here."""
        if name == "loss":
            return (
                f"the development loss, {loss:.4f}, exceeds {self.loss_stop_ratio:g} times its smallest before, "
                f"{self.smallest_loss:.4f}"
            )
        times = f" {self.epochs_without_improvement} times in a row" if self.patience else ""
        return (
            f"the {self._score}, {smoothed:.4f}, is not a new best{times} (the best is {self.best:.4f}, of epoch "
            f"{self.best_epoch})"
        )

    def _judge(self, epoch: int, loss: float, smoothed: float, improved: bool) -> list[tuple[str, str]]:
        """Update the best score and return the rules that ask to stop, the loss rule last."""
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
