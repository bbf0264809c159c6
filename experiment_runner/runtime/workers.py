"""How many processes decode recordings beside a training."""

from __future__ import annotations

import os

import torch

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
