"""Which utterances form which batch: a pure function of (seed, epoch), known to every rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.dataset.random_draws import order_generator

Rows = npt.NDArray[np.int64]
"""Positions in a split's table."""
EVALUATION = -1
"""The epoch of what is not cropped or augmented."""
Item = tuple[int, int]
"""(epoch, row): what a dataset is asked for, so that workers need no state."""


@dataclass(frozen=True)
class RandomBatches:
    """Random batches of a training split.

    An epoch is cut into ceil(utterances / effective batch) optimiser steps whose sizes differ by at most one, each step
    into micro-batches likewise: no utterance is dropped, none is seen twice, and accumulating 4 of 2 takes the same
    steps as batches of 8. Every rank has the same number of micro-batches; where utterances do not divide among ranks,
    a micro-batch may hold one more than `batch_size`.

    Raises:
        ValueError: Where there are fewer utterances than ranks.
    """

    utterances: int
    batch_size: int
    accumulation_steps: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.utterances < self.ranks:
            raise ValueError(f"{self.utterances} training utterances are too few for {self.ranks} processes")

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        effective = self.batch_size * self.accumulation_steps * self.ranks
        return min(-(-self.utterances // effective), self.utterances // self.ranks)

    def step_sizes(self) -> list[int]:
        """Return the utterances of every optimiser step, on all ranks together."""
        steps = self.steps_per_epoch
        return [(self.utterances + steps - 1 - step) // steps for step in range(steps)]

    def steps(self, epoch: int) -> list[list[Rows]]:
        """Return the micro-batches of this rank for every optimiser step of an epoch."""
        order = order_generator(self.seed, epoch).permutation(self.utterances)
        return [self._micro_batches(rows) for rows in np.array_split(order, self.steps_per_epoch)]

    def _micro_batches(self, rows: Rows) -> list[Rows]:
        parts = min(self.accumulation_steps, len(rows) // self.ranks)
        return np.array_split(rows, parts * self.ranks)[self.rank :: self.ranks]


def evaluation_batches(seconds: npt.NDArray[np.float64], batch_size: int) -> list[Rows]:
    """Return batches of similar duration, the longest first, so that memory fails early."""
    order = np.argsort(-seconds, kind="stable").astype(np.int64)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class BatchItems:
    """A batch sampler for `torch.utils.data.DataLoader`, told before every pass which batches to serve.

    Attributes:
        batches: Rows of each batch.
        epoch: Their epoch, or `EVALUATION`.
    """

    def __init__(self, batches: Sequence[Rows] = (), epoch: int = EVALUATION) -> None:
        self.batches = batches
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Item]]:
        for rows in self.batches:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        return len(self.batches)
