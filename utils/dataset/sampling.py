"""Batches of an epoch: a pure function of (seed, epoch), so that every rank knows all batches."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.seeding import order_generator

Rows = npt.NDArray[np.int64]
"""Positions in a split's table."""
EVALUATION = -1
"""Epoch number that stands for evaluation, without cropping or augmentation."""
Item = tuple[int, int]
"""Index of a dataset, (epoch, row), so that workers need no state."""


def count_steps(utterances: int, effective_batch: int, ranks: int = 1) -> int:
    """Return the number of optimiser steps in an epoch.

    Args:
        utterances: Number of utterances in the training split.
        effective_batch: Utterances per step, on all ranks together.
        ranks: Number of processes; each takes at least one utterance of every step.
    """
    steps = count_steps_before_joining(utterances, effective_batch, ranks)
    # Steps differ by at most one in size, so a single utterance remains only at the end of an epoch cut into twos.
    # It joins the step before: in a step of one utterance the class weights cancel and the covariance is 0. Steps of
    # one utterance can still be configured; `experiment_runner.data.step_rows` refuses the losses that cannot learn
    # from them.
    return steps - (effective_batch > 1 and steps > 1 and utterances // steps == 1)


def count_steps_before_joining(utterances: int, effective_batch: int, ranks: int = 1) -> int:
    """Return the number of steps where the last may be of a single utterance, as in runs of earlier releases.

    Args:
        utterances: See `count_steps`.
        effective_batch: See `count_steps`.
        ranks: See `count_steps`.
    """
    return min(-(-utterances // effective_batch), utterances // ranks)


@dataclass(frozen=True, eq=False)
class RandomBatches:
    """Random batches of a training split.

    An epoch is cut into ceil(utterances / effective batch) optimiser steps whose sizes differ by at most one, and each
    step is cut into micro-batches likewise: no utterance is dropped or seen twice, and accumulating 4 micro-batches of
    2 takes the same steps as batches of 8. A last step of a single utterance joins the one before, which then holds
    three. Every rank has the same number of steps; where utterances do not divide evenly among ranks, or a step was
    joined, a micro-batch may hold one more than `batch_size`. A micro-batch longer than `max_seconds` is split.

    Attributes:
        seconds: Duration of every utterance as it is trained on, (utterances,).
        batch_size: Utterances per micro-batch.
        accumulation_steps: Micro-batches per step and rank.
        seed: The run's seed.
        max_seconds: Maximum duration of a micro-batch, unless a single utterance is longer.
        rank: Rank of this process.
        ranks: Number of processes.
        order: Function from seed and epoch to the epoch's utterances in order, (utterances,); None for a random order
            of all utterances.

    Raises:
        ValueError: If there are fewer utterances than ranks.
    """

    seconds: npt.NDArray[np.float64]
    batch_size: int
    accumulation_steps: int
    seed: int
    max_seconds: float = math.inf
    rank: int = 0
    ranks: int = 1
    order: Callable[[int, int], Rows] | None = None

    def __post_init__(self) -> None:
        if self.utterances < self.ranks:
            raise ValueError(f"{self.utterances} training utterances are too few for {self.ranks} processes")

    @property
    def utterances(self) -> int:
        """Number of utterances in an epoch."""
        return len(self.seconds)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimiser steps in an epoch."""
        return count_steps(self.utterances, self._effective_batch, self.ranks)

    @property
    def most_rows(self) -> int:
        """Maximum number of utterances in a micro-batch, before it is split at `max_seconds`."""
        largest = max(self.step_sizes(1))
        return -(-largest // self._count_micro_batches(largest))

    def step_sizes(self, epoch: int) -> list[int]:
        """Return the number of utterances in every optimiser step of an epoch, on all ranks together."""
        return [len(rows) for rows in self._steps_of_all(epoch)]

    def count_rows(self, counted: npt.NDArray[np.bool_], epoch: int) -> list[int]:
        """Return how many of the marked utterances are in every optimiser step of an epoch, on all ranks together.

        Args:
            counted: Mask of the utterances to count, (utterances,).
            epoch: Epoch, counted from 1.
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
        if self.order is not None:
            order = self.order(self.seed, epoch)
        else:
            order = order_generator(self.seed, epoch).permutation(self.utterances)
        steps = np.array_split(order, count_steps_before_joining(self.utterances, self._effective_batch, self.ranks))
        if len(steps) > self.steps_per_epoch:
            steps[-2:] = [np.concatenate(steps[-2:])]
        return steps

    def _count_micro_batches(self, utterances: int) -> int:
        """Return the number of micro-batches in a step of the given size, on all ranks together."""
        return min(self.accumulation_steps, utterances // self.ranks) * self.ranks

    def _micro_batches(self, step: Rows) -> list[Rows]:
        """Return the micro-batches of all ranks, which take them in turn.

        Utterances are dealt from the longest to the shortest, each to the shortest micro-batch so far, so that all have
        about the same duration: ranks wait for the slowest in every step, and the longest determines the memory.
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
        """Split a micro-batch, in order, where `max_seconds` is reached."""
        starts, total = [], 0.0
        for place, seconds in enumerate(self.seconds[rows]):
            total += seconds
            if place and total > self.max_seconds:
                starts.append(place)
                total = seconds
        return np.split(rows, starts)


def evaluation_batches(seconds: npt.NDArray[np.float64], batch_seconds: float) -> list[Rows]:
    """Return batches of utterances of similar duration, the longest first, so that a lack of memory shows early.

    Args:
        seconds: Duration of every utterance, (utterances,).
        batch_seconds: Maximum duration of a batch, with every utterance counted as long as the longest; a longer
            utterance is a batch by itself.
    """
    order = np.argsort(-seconds, kind="stable").astype(np.int64)
    batches = []
    while len(order):
        size = max(1, int(batch_seconds // max(seconds[order[0]], 1e-3)))
        batches.append(order[:size])
        order = order[size:]
    return batches


class BatchItems:
    """A batch sampler for `torch.utils.data.DataLoader`, given the batches to serve before every pass.

    Attributes:
        batches: Rows of each batch.
        epoch: Epoch of the batches, or `EVALUATION`.
    """

    def __init__(self, batches: Sequence[Rows] = (), epoch: int = EVALUATION) -> None:
        self.batches = batches
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Item]]:
        for rows in self.batches:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        return len(self.batches)
