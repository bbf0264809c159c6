"""How many processes train each run: as many as were started, or as its half-done training was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from utils.config.schema import ExperimentConfig


@dataclass(frozen=True)
class ProcessCounts:
    """Numbers of processes.

    Attributes:
        started: As many as the command was started with.
        begun: Those of half-done runs, by experiment and seed.
    """

    started: int = 1
    begun: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def of(self, config: ExperimentConfig) -> int:
        """Return how many train an experiment: those of its first half-done run, if there is one."""
        known = (self.begun.get((config.name, seed)) for seed in config.seeds)
        return next((count for count in known if count is not None), self.started)

    def of_run(self, name: str, seed: int) -> int:
        """Return how many train one run."""
        return self.begun.get((name, seed), self.started)


ONE_PROCESS = ProcessCounts()
