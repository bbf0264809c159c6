"""Feeds: the batches of a split, and the processes that decode them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

import torch
from torch.utils.data import DataLoader, Dataset

from dataset_module.ser_dataset import SERDataset
from experiment_runner.runtime.interruption import outlive_signals
from utils.dataset.collation import Batch, Utterance, collate
from utils.dataset.sampling import BatchItems, Item, Rows
from utils.errors import DataError, UserError

LONGEST_WAIT = 1800.0
"""Seconds that a batch is waited for: a disk of the network may be gone for a while, but not for ever."""
SECONDS_BETWEEN_LOOKS = 1.0
"""While a batch is waited for."""


class NoAnswerError(UserError):
    """No batch was decoded for a long time; the text names the remedy."""


@dataclass(frozen=True)
class BatchLoader:
    """Batches of a split: which ones, and the loader that decodes them.

    Attributes:
        items: What each pass of the loader serves.
        loader: Decodes.
        check: Called while a batch is waited for; raises where that is to end.
        closed: Whether nobody waits any more.
    """

    items: BatchItems
    loader: DataLoader[Batch]
    check: Callable[[], None]
    closed: Event = field(default_factory=Event, kw_only=True)

    def serve(self, batches: list[Rows], epoch: int) -> Iterator[Batch]:
        """Decode the batches in order."""
        self.items.batches, self.items.epoch = batches, epoch
        return self.decode()

    def decode(self) -> Iterator[Batch]:
        """Start a pass of the loader."""
        self.closed.clear()
        return decoded(begin_pass(self.loader), self._look)

    def close(self) -> None:
        """End the processes that decode, and the wait for them in other threads."""
        self.closed.set()
        end_workers(self.loader)

    def _look(self) -> None:
        if self.closed.is_set():
            raise RuntimeError("the feed was closed")
        self.check()


def make_loader(dataset: SERDataset, items: BatchItems, num_workers: int, device: torch.device) -> DataLoader[Batch]:
    """Return a loader whose workers live as long as it does; `items` says what each pass serves.

    On Linux workers are forked, whatever Python's default is: they share the tables with the main process, and have
    its signal handlers from their first moment on.
    """
    return DataLoader(
        _GuardedDataset(dataset),  # type: ignore[arg-type] # what comes out is collated
        batch_sampler=items,
        collate_fn=_collate_guarded,  # `decoded` takes the errors out
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        timeout=LONGEST_WAIT if num_workers > 0 else 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
        multiprocessing_context="fork" if num_workers > 0 and sys.platform == "linux" else None,
        generator=torch.Generator(),
    )


def _begin_worker(_: int) -> None:
    """Let a signal to all processes reach the main one alone, which ends its workers when it has saved."""
    outlive_signals()


def begin_pass(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Start a pass whose batches are waited for a second at a time, so that `decoded` can look around and ask again.

    Workers that live on answer first that they begin anew; torch cannot ask for that twice, so it is waited for whole.
    """
    if loader._iterator is not None:
        loader._iterator._timeout = loader.timeout
    passes = iter(loader)
    if loader.num_workers > 0:
        passes._timeout = SECONDS_BETWEEN_LOOKS
    return passes


def end_workers(loader: DataLoader[Batch]) -> None:
    """End the processes that decode for a loader; a later pass starts others.

    Torch ends them as soon as nothing refers to the loader. Where it refers to itself by way of others, though, the
    garbage collector takes away the queues first, and each process is waited for for five seconds.
    """
    passes = loader._iterator
    loader._iterator = None
    if passes is not None:
        passes._shutdown_workers()  # type: ignore[attr-defined] # only loaders with workers keep their passes


def decoded(passes: Iterator[Batch], check: Callable[[], None] = lambda: None) -> Iterator[Batch]:
    """Serve the batches of a pass.

    Args:
        passes: As `begin_pass` returns it.
        check: Called every second while a batch is waited for; raises where that is to end.

    Raises:
        DataError: Where a recording cannot be used; as a worker met it, without the worker's traceback.
        NoAnswerError: Where no batch comes for half an hour.
    """
    while (batch := _next(passes, check)) is not None:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _next(passes: Iterator[Batch], check: Callable[[], None]) -> Batch | None:
    asked = time.monotonic()
    while True:
        try:
            return next(passes, None)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
        check()
        if time.monotonic() - asked > LONGEST_WAIT:
            raise NoAnswerError(
                f"no batch was decoded within {LONGEST_WAIT / 60:g} min; look at the disk that the recordings lie on; "
                "the same command goes on from the last checkpoint"
            )


class _GuardedDataset(Dataset[Utterance | DataError]):
    """Hands errors over as values: raised in a worker, they would arrive as the text of a traceback."""

    def __init__(self, dataset: SERDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> Utterance | DataError:
        try:
            return self.dataset[item]
        except DataError as error:
            return error


def _collate_guarded(items: Sequence[Utterance | DataError]) -> Batch | DataError:
    utterances = [item for item in items if not isinstance(item, DataError)]
    errors = [item for item in items if isinstance(item, DataError)]
    return errors[0] if errors else collate(utterances)
