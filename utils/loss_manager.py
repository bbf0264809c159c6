"""Running means of named loss terms, kept on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class LossManager:
    """Accumulates the named loss terms of every step without waiting for the device.

    The terms have the names that appear in the log; `loss` is their sum. Steps with terms that are not finite are
    refused by the trainer and left out of the means. From the first step on, the sums keep their place in memory.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0)

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one optimiser step's terms, each a scalar."""
        values = torch.stack([*terms.values()]).detach().double()
        values = F.pad(values, (0, 1), value=1.0)  # the last element counts steps
        if not self._names:
            self._names, self._sums = tuple(terms), torch.zeros_like(values)
        self._sums += torch.where(torch.isfinite(values.sum()), values, 0.0)

    def restart(self) -> None:
        """Forget all steps."""
        self._sums.zero_()

    def sums(self) -> tuple[tuple[str, ...], Tensor]:
        """Return the arguments of `load_state`: the terms' names, then their sums and the number of finite steps."""
        return self._names, self._sums

    def load_state(self, names: Sequence[str], sums: Tensor) -> None:
        """Continue from the state of another manager."""
        self._names, self._sums = tuple(names), sums

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the finite steps since the last restart; waits for the device.

        Raises:
            ValueError: If no step was added.
        """
        if not self._names:
            raise ValueError("no step was added yet")
        *sums, steps = self._sums.tolist()
        means = [total / steps if steps else math.nan for total in sums]
        return {**dict(zip(self._names, means, strict=True)), "loss": sum(means)}
