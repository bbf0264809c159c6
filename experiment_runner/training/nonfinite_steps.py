"""Optimiser steps that are refused because their gradients are not finite, counted on the device."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_IN_A_ROW = 10
"""This many refused steps in a row end the experiment."""


class NonfiniteSteps:
    """Counts refused steps without waiting for the device.

    Args:
        device: Device that holds the gradients.

    Attributes:
        counts: (5,) float64: total refused steps, current refused steps in a row, most refused steps in a row, all
            steps, and the number of all steps when that maximum was reached.
    """

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(5, dtype=torch.float64, device=device)

    @property
    def total(self) -> int:
        """Total number of refused steps; waits for the device."""
        return int(self.counts[0])

    def add(self, is_refused: Tensor) -> None:
        """Count a step.

        Args:
            is_refused: () float32, 1 or 0.
        """
        total, in_row, most, steps, reached = self.counts.unbind()
        steps = steps + 1
        in_row = (in_row + 1) * is_refused
        reached = torch.where(in_row > most, steps, reached)
        self.counts.copy_(torch.stack([total + is_refused, in_row, torch.maximum(most, in_row), steps, reached]))

    def load_state(self, counts: Tensor) -> None:
        """Continue from the counts of an earlier instance."""
        self.counts.copy_(counts)

    def too_many(self) -> range:
        """Wait for the device; return the numbers, from 1, of too many refused steps in a row, or an empty range."""
        _, _, most, _, reached = (int(count) for count in self.counts.tolist())
        return range(reached - most + 1, reached + 1) if most >= MOST_IN_A_ROW else range(0)
