"""Forward passes without gradients, and the loaders that feed them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from dataset_module.ser_dataset import SERDataset
from experiment_runner.optimisation import Precision
from net.loss_modules import Targets
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.data import DataError
from utils.dataset.collation import Batch, Utterance, collate
from utils.dataset.sampling import BatchItems, Item

MOST_WORKERS = 16


def choose_workers(num_workers: int | str, device: torch.device) -> int:
    """Resolve the `num_workers` key: on a GPU the cores that are free, on the CPU none, whose cores the model needs."""
    if isinstance(num_workers, int):
        return num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, cores - 1))


def make_loader(dataset: SERDataset, items: BatchItems, num_workers: int, device: torch.device) -> DataLoader[Batch]:
    """Return a loader whose workers live as long as it does; `items` says what each pass serves."""
    return DataLoader(
        _GuardedDataset(dataset),  # type: ignore[arg-type] # what comes out is collated
        batch_sampler=items,
        collate_fn=_collate_guarded,  # `decoded` takes the errors out
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


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
    model: SERModelWrapper, batches: Iterable[Batch], device: torch.device, precision: Precision
) -> tuple[Outputs, Targets]:
    """Run the model over batches in evaluation mode.

    Returns:
        Outputs without embeddings, and targets, of all utterances on the device, fp32, ordered by row.
    """
    was_training = model.training
    model.eval()
    outputs, targets, rows = [], [], []
    with torch.inference_mode(), precision.autocast(device):
        for batch in batches:
            on_device = batch.to(device)
            outputs.append(model(on_device.inputs).without_embedding())
            targets.append(on_device.targets)
            rows.append(batch.rows)
    model.train(was_training)
    order = torch.cat(rows).argsort().to(device)
    return Outputs.concatenate(outputs).select(order), Targets.concatenate(targets).select(order)
