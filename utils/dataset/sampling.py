"""Which utterances form which batch: a pure function of (seed, epoch), known to every rank."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.seeding import order_generator

Rows = npt.NDArray[np.int64]
"""Positions in a split's table."""
EVALUATION = -1
"""The epoch of what is not cropped or augmented."""
Item = tuple[int, int]
"""(epoch, row): what a dataset is asked for, so that workers need no state."""


def count_steps(utterances: int, effective_batch: int, ranks: int = 1) -> int:
    """Return the optimiser steps of an epoch.

    Args:
        utterances: Utterances of the training split.
        effective_batch: Utterances of a step, on all ranks together.
        ranks: Processes; each takes an utterance or more of every step.
    """
    steps = count_steps_before_joining(utterances, effective_batch, ranks)
    # Steps differ by at most one in size, so one of a single utterance is the last of an epoch that is cut into twos:
    # joined to the step before, it leaves none of which the class weights cancel and the covariance is 0. Whoever asks
    # for steps of one utterance gets them; `experiment_runner.data.step_rows` refuses the losses that they cannot
    # serve.
    return steps - (effective_batch > 1 and steps > 1 and utterances // steps == 1)


def count_steps_before_joining(utterances: int, effective_batch: int, ranks: int = 1) -> int:
    """Return the steps of an epoch whose last one may be of a single utterance, as runs of earlier releases took them.

    Args:
        utterances: See `count_steps`.
        effective_batch: See `count_steps`.
        ranks: See `count_steps`.
    """
    return min(-(-utterances // effective_batch), utterances // ranks)


@dataclass(frozen=True, eq=False)
class RandomBatches:
    """Random batches of a training split.

    An epoch is cut into ceil(utterances / effective batch) optimiser steps whose sizes differ by at most one, each step
    into micro-batches likewise: no utterance is dropped, none is seen twice, and accumulating 4 of 2 takes the same
    steps as batches of 8. A last step of a single utterance joins the one before, which then holds three. Every rank
    has the same number of steps; where utterances do not divide among ranks, or a step was joined, a micro-batch may
    hold one more than `batch_size`. A micro-batch longer than `max_seconds` is cut into several.

    Attributes:
        seconds: Of every utterance as it is trained on, (utterances,).
        batch_size: Utterances of a micro-batch.
        accumulation_steps: Micro-batches of a step and rank.
        seed: The run's.
        max_seconds: Of a micro-batch, unless a single utterance is longer.
        rank: This process.
        ranks: All processes.

    Raises:
        ValueError: Where there are fewer utterances than ranks.
    """

    seconds: npt.NDArray[np.float64]
    batch_size: int
    accumulation_steps: int
    seed: int
    max_seconds: float = math.inf
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.utterances < self.ranks:
            raise ValueError(f"{self.utterances} training utterances are too few for {self.ranks} processes")

    @property
    def utterances(self) -> int:
        """Utterances in an epoch."""
        return len(self.seconds)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return count_steps(self.utterances, self._effective_batch, self.ranks)

    @property
    def most_rows(self) -> int:
        """Most utterances of a micro-batch, before it is cut at `max_seconds`."""
        largest = max(self.step_sizes(1))
        return -(-largest // self._count_micro_batches(largest))

    def step_sizes(self, epoch: int) -> list[int]:
        """Return the utterances of every optimiser step of an epoch, on all ranks together."""
        return [len(rows) for rows in self._steps_of_all(epoch)]

    def count_rows(self, counted: npt.NDArray[np.bool_], epoch: int) -> list[int]:
        """Return how many of some utterances stand in every optimiser step of an epoch, on all ranks together.

        Args:
            counted: Which utterances count, (utterances,).
            epoch: Counted from 1.
        """
        return [int(counted[rows].sum()) for rows in self._steps_of_all(epoch)]

    def steps(self, epoch: int) -> list[list[Rows]]:
        """Return the micro-batches of this rank for every optimiser step of an epoch."""
        return [
            [part for rows in self._micro_batches(step)[self.rank :: self.ranks] for part in self._cut(rows)]
            for step in self._steps_of_all(epoch)
        ]

    def rows_of(self, step: int) -> Rows:
        """Return the utterances, on all ranks together, of an optimiser step counted from 1 over all epochs."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return self._steps_of_all(epoch + 1)[place]

    def longest(self, epoch: int) -> Rows:
        """Return the longest micro-batch of this rank in an epoch."""
        return max(
            (rows for step in self.steps(epoch) for rows in step), key=lambda rows: float(self.seconds[rows].sum())
        )

    @property
    def _effective_batch(self) -> int:
        return self.batch_size * self.accumulation_steps * self.ranks

    def _steps_of_all(self, epoch: int) -> list[Rows]:
        order = order_generator(self.seed, epoch).permutation(self.utterances)
        steps = np.array_split(order, count_steps_before_joining(self.utterances, self._effective_batch, self.ranks))
        if len(steps) > self.steps_per_epoch:
            steps[-2:] = [np.concatenate(steps[-2:])]
        return steps

    def _count_micro_batches(self, utterances: int) -> int:
        """Return the micro-batches of a step of so many utterances, on all ranks together."""
        return min(self.accumulation_steps, utterances // self.ranks) * self.ranks

    def _micro_batches(self, step: Rows) -> list[Rows]:
        """Return those of all ranks, which take them in turn.

        Utterances are dealt from the longest to the shortest, each to the micro-batch that lasts shortest so far, so
        that all last about equally long: ranks wait for the slowest in every step, and memory is that of the longest.
        """
        count = self._count_micro_batches(len(step))
        if count == 1:
            return [step]
        room = [len(part) for part in np.array_split(step, count)]
        dealt: list[list[int]] = [[] for _ in range(count)]
        shortest = [(0.0, number) for number in range(count)]
        for row in step[np.argsort(-self.seconds[step], kind="stable")].tolist():
            seconds, number = heapq.heappop(shortest)
            dealt[number].append(row)
            if len(dealt[number]) < room[number]:
                heapq.heappush(shortest, (seconds + float(self.seconds[row]), number))
        return [np.array(rows, dtype=np.int64) for rows in dealt]

    def _cut(self, rows: Rows) -> list[Rows]:
        """Cut a micro-batch, in its order, where `max_seconds` are full."""
        starts, total = [], 0.0
        for place, seconds in enumerate(self.seconds[rows]):
            total += seconds
            if place and total > self.max_seconds:
                starts.append(place)
                total = seconds
        return np.split(rows, starts)


def evaluation_batches(seconds: npt.NDArray[np.float64], batch_seconds: float) -> list[Rows]:
    """Return batches of similar duration, the longest first, so that memory fails early.

    Args:
        seconds: Of every utterance, (utterances,).
        batch_seconds: The most that a batch may last, all its utterances taken as long as its longest; an utterance
            that is longer still is a batch by itself.
    """
    order = np.argsort(-seconds, kind="stable").astype(np.int64)
    batches = []
    while len(order):
        size = max(1, int(batch_seconds // max(seconds[order[0]], 1e-3)))
        batches.append(order[:size])
        order = order[size:]
    return batches


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
