"""Number of processes that decode recordings during training."""

from __future__ import annotations

import os

import torch

MOST_WORKERS = 16


def choose_workers(num_workers: int | str, device: torch.device, sharing: int) -> int:
    """Resolve the `num_workers` key: on a GPU the free cores; on the CPU none, since the model needs the cores.

    Args:
        num_workers: Value of the key.
        device: Device that holds the model.
        sharing: Processes that share the machine's cores.
    """
    if isinstance(num_workers, int):
        return num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, cores // sharing - 1))
