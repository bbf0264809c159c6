"""Forward passes without gradients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.runtime.out_of_memory import NameRows, explained
from experiment_runner.runtime.precision import Precision
from experiment_runner.training.effective_batch import gather
from net.loss_modules import Targets
from net.ser import Outputs
from net.ser_model_wrapper import SERModelWrapper
from utils.dataset.collation import Batch


def infer(
    model: SERModelWrapper,
    batches: Iterable[Batch],
    device: torch.device,
    precision: Precision,
    name_rows: NameRows,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Outputs, Targets]:
    """Run the model over batches in evaluation mode.

    Args:
        model: The model.
        batches: This process's share of the batches, see `TorchProcessGroup.shard`.
        device: Device that holds the model.
        precision: Precision of the forward passes.
        name_rows: Names utterances by their rows.
        processes: Processes that share the batches.

    Returns:
        In every process: outputs (without embeddings) and targets of the utterances of all processes, on the device,
        fp32, ordered by row, each row once.

    Raises:
        FullMemoryError: If a batch does not fit into GPU memory.
    """
    was_training = model.training
    model.eval()
    outputs, targets, rows = [], [], []
    with torch.inference_mode(), precision.autocast(device), processes.raise_together():
        for batch in batches:
            on_device = batch.to(device)
            with explained(name_rows, batch.rows.tolist(), "lower eval_batch_seconds"):
                outputs.append(model(on_device.inputs).without_embedding())
            targets.append(on_device.targets)
            rows.append(batch.rows)
    model.train(was_training)
    with torch.inference_mode():
        joined, known, _ = gather(Outputs.concatenate(outputs), Targets.concatenate(targets), processes)
        (every_row,), _ = processes.gather([torch.cat(rows)])
        order = torch.from_numpy(np.unique(every_row, return_index=True)[1]).to(device)
        return joined.select(order), known.select(order)
