"""Running means of named loss terms, kept on the device."""

from __future__ import annotations

import torch
from torch import Tensor


class LossManager:
    """Accumulates every named term of every step without waiting for the device.

    The names of the terms are the names in the log; `loss` is their sum. Steps whose terms are not finite are refused
    by the trainer and left out of the means.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: Tensor | None = None

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one optimiser step's terms, each a scalar."""
        values = {name: term.detach().double() for name, term in terms.items()}
        values["loss"] = torch.stack(list(values.values())).sum()
        is_finite = torch.isfinite(values["loss"])
        for name, value in values.items():
            kept = torch.where(is_finite, value, torch.zeros_like(value))
            self._sums[name] = self._sums[name] + kept if name in self._sums else kept
        self._steps = is_finite.double() if self._steps is None else self._steps + is_finite

    def means(self) -> dict[str, float]:
        """Return the mean of every term over the finite steps since the start; waits for the device.

        Raises:
            ValueError: Where no step was added.
        """
        if self._steps is None:
            raise ValueError("no step was added yet")
        steps = float(self._steps)
        return {name: float(total) / steps if steps else float("nan") for name, total in self._sums.items()}
