"""Optimiser steps that are refused because their gradients are not finite: how many, and on which utterances."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from utils.dataset.sampling import Rows

MOST_IN_A_ROW = 10
"""So many end the experiment."""
MOST_NAMES = 20
"""Utterances that are named then."""


class RefusedSteps:
    """Counts refused steps on the device, without waiting for it.

    Args:
        device: Where gradients are.
        look_every: Steps between two calls of `check`.

    Attributes:
        counts: (5,) float64: refused steps in all, in a row now, most in a row; all steps, and their number when the
            most were reached.
    """

    def __init__(self, device: torch.device, look_every: int) -> None:
        self.counts = torch.zeros(5, dtype=torch.float64, device=device)
        self._steps = 0
        self._taken: deque[tuple[int, list[Rows]]] = deque(maxlen=look_every + MOST_IN_A_ROW)

    @property
    def total(self) -> int:
        """Refused steps in all; waits for the device."""
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

    def remember(self, rows: list[Rows]) -> None:
        """Keep which utterances the next step trains on, for a while."""
        self._steps += 1
        self._taken.append((self._steps, rows))

    def go_on_from(self, counts: Tensor) -> None:
        """Continue where another one was."""
        self.counts.copy_(counts)
        self._steps = int(counts[3])

    def check(self, name: Callable[[int], str]) -> None:
        """Wait for the device, and end a run that goes nowhere.

        Args:
            name: Names a row's utterance.

        Raises:
            FloatingPointError: Where too many steps in a row were refused.
        """
        _, _, most, _, reached = self.counts.tolist()
        if most < MOST_IN_A_ROW:
            return
        last = int(reached)
        rows = [row for step, parts in self._taken if last - most < step <= last for part in parts for row in part]
        names = ", ".join(name(int(row)) for row in rows[:MOST_NAMES])
        more = f" and {len(rows) - MOST_NAMES} more" if len(rows) > MOST_NAMES else ""
        raise FloatingPointError(
            f"{int(most)} optimiser steps in a row (to step {last}) had gradients that are not finite, with "
            f'{names}{more}; lower learning_rate, or set amp = "off"'
        )
