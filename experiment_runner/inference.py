"""Forward passes without gradients, and the loaders that feed them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataset_module.ser_dataset import SERDataset
from experiment_runner.effective_batch import gather
from experiment_runner.interruption import outlive_signals
from experiment_runner.optimisation import Precision
from experiment_runner.processes import ALONE, Processes
from net.loss_modules import Targets
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.data import DataError
from utils.dataset.collation import Batch, Utterance, collate
from utils.dataset.sampling import BatchItems, Item

MOST_WORKERS = 16


def choose_workers(num_workers: int | str, device: torch.device, sharing: int) -> int:
    """Resolve the `num_workers` key: on a GPU the cores that are free, on the CPU none, whose cores the model needs.

    Args:
        num_workers: The key.
        device: Where the model is.
        sharing: Processes that share the machine's cores.
    """
    if isinstance(num_workers, int):
        return num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, cores // sharing - 1))


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
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
        multiprocessing_context="fork" if num_workers > 0 and sys.platform == "linux" else None,
        generator=torch.Generator(),
    )


def _begin_worker(_: int) -> None:
    """Let a signal to all processes reach the main one alone, which ends its workers when it has saved."""
    outlive_signals()


def end_workers(loader: DataLoader[Batch]) -> None:
    """End the processes that decode for a loader; a later pass starts others.

    Torch ends them as soon as nothing refers to the loader. Where it refers to itself by way of others, though, the
    garbage collector takes away the queues first, and each process is waited for for five seconds.
    """
    passes = loader._iterator
    loader._iterator = None
    if passes is not None:
        passes._shutdown_workers()  # type: ignore[attr-defined] # only loaders with workers keep their passes


def decoded(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Serve a loader's batches.

    Raises:
        DataError: Where a recording cannot be used; as a worker met it, without the worker's traceback.
    """
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


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


def infer(
    model: SERModelWrapper,
    batches: Iterable[Batch],
    device: torch.device,
    precision: Precision,
    processes: Processes = ALONE,
) -> tuple[Outputs, Targets]:
    """Run the model over batches in evaluation mode.

    Args:
        model: The model.
        batches: This process's share, as `Processes.deal` gives it.
        device: Where the model is.
        precision: Of the forward passes.
        processes: That share the batches.

    Returns:
        In every process, outputs without embeddings, and targets, of the utterances of all processes on the device,
        fp32, ordered by row, each row once.
    """
    was_training = model.training
    model.eval()
    outputs, targets, rows = [], [], []
    with torch.inference_mode(), precision.autocast(device), processes.agreement():
        for batch in batches:
            on_device = batch.to(device)
            outputs.append(model(on_device.inputs).without_embedding())
            targets.append(on_device.targets)
            rows.append(batch.rows)
    model.train(was_training)
    with torch.inference_mode():
        joined, known, _ = gather(Outputs.concatenate(outputs), Targets.concatenate(targets), processes)
        (every_row,), _ = processes.gather([torch.cat(rows)])
        order = torch.from_numpy(np.unique(every_row, return_index=True)[1]).to(device)
        return joined.select(order), known.select(order)
