"""Batch loaders: the batches of a split, and the processes that decode them."""

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
"""Seconds to wait for a batch: a network disk may be unavailable for a while, but not for ever."""
SECONDS_BETWEEN_LOOKS = 1.0
"""Seconds between two calls of `check` while waiting for a batch."""


class NoAnswerError(UserError):
    """No batch was decoded for a long time; the message names the remedy."""


@dataclass(frozen=True)
class BatchLoader:
    """Serves chosen batches of a split from the loader that decodes them.

    Attributes:
        items: Batches that each pass of the loader serves.
        loader: Loader that decodes them.
        check: Called while waiting for a batch; raises to end the wait.
        closed: Whether `close` was called, which ends every wait.
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
        return decoded(self.loader, self._look)

    def close(self) -> None:
        """Stop the decoding processes, and end the waits for them in other threads."""
        self.closed.set()
        end_workers(self.loader)

    def _look(self) -> None:
        if self.closed.is_set():
            raise RuntimeError("the loader was closed")
        self.check()


def make_loader(dataset: SERDataset, items: BatchItems, num_workers: int, device: torch.device) -> DataLoader[Batch]:
    """Return a loader whose workers live as long as it does; `items` holds what each pass serves.

    On Linux, workers are forked whatever Python's default is: they share the tables with the main process, and have its
    signal handlers from the start.
    """
    return DataLoader(
        _GuardedDataset(dataset),  # type: ignore[arg-type] # what comes out is collated
        batch_sampler=items,
        collate_fn=_collate_guarded,  # `decoded` raises the errors that it passes on
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        timeout=LONGEST_WAIT if num_workers > 0 else 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
        multiprocessing_context="fork" if num_workers > 0 and sys.platform == "linux" else None,
        generator=torch.Generator(),
    )


def _begin_worker(_: int) -> None:
    """Leave signals sent to all processes to the main process, which stops its workers after saving."""
    outlive_signals()


def end_workers(loader: DataLoader[Batch]) -> None:
    """Stop a loader's decoding processes; a later pass starts new ones.

    Torch stops them as soon as nothing refers to the loader. If the loader is part of a reference cycle, though, the
    garbage collector removes the queues first, and torch waits five seconds for each process.
    """
    passes = loader._iterator
    loader._iterator = None
    if passes is not None:
        passes._shutdown_workers()  # type: ignore[attr-defined] # only loaders with workers keep their passes


def decoded(loader: DataLoader[Batch], check: Callable[[], None] = lambda: None) -> Iterator[Batch]:
    """Start a pass of a loader, and serve its batches.

    It waits for batches one second at a time, to call `check` and wait again. Persistent workers first confirm that
    they restart; torch cannot repeat that wait, so it gets the full time limit.

    Args:
        loader: The loader.
        check: Called every second while waiting for a batch; raises to end the wait.

    Raises:
        DataError: If a recording is unusable; the worker's error, without its traceback.
        NoAnswerError: If no batch arrives for half an hour.
    """
    if loader._iterator is not None:
        loader._iterator._timeout = loader.timeout
    passes = iter(loader)
    if loader.num_workers > 0:
        passes._timeout = SECONDS_BETWEEN_LOOKS
    return _served(passes, check)


def _served(passes: Iterator[Batch], check: Callable[[], None]) -> Iterator[Batch]:
    while (batch := _next(passes, check)) is not None:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _next(passes: Iterator[Batch], check: Callable[[], None]) -> Batch | None:
    began = time.monotonic()
    while True:
        try:
            return next(passes, None)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
        check()
        if time.monotonic() - began > LONGEST_WAIT:
            raise NoAnswerError(
                f"no batch was decoded within {LONGEST_WAIT / 60:g} min; check the disk that holds the recordings; "
                "the same command resumes from the last checkpoint"
            )


class _GuardedDataset(Dataset[Utterance | DataError]):
    """Returns errors as values: raised in a worker, they would arrive as the text of a traceback."""

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
