"""Processes that train each run: as many as were started, or as its unfinished training began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from utils.config.schema import ExperimentConfig


@dataclass(frozen=True)
class ProcessCounts:
    """Numbers of processes.

    Attributes:
        started: Processes that the command was started with.
        begun: Processes that unfinished runs began with, by experiment and seed.
    """

    started: int = 1
    begun: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def of(self, config: ExperimentConfig) -> int:
        """Return how many processes train an experiment: as many as its first unfinished run, if any."""
        known = (self.begun.get((config.name, seed)) for seed in config.seeds)
        return next((count for count in known if count is not None), self.started)

    def of_run(self, name: str, seed: int) -> int:
        """Return how many processes train one run."""
        return self.begun.get((name, seed), self.started)


ONE_PROCESS = ProcessCounts()
