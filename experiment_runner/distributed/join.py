"""Joins the processes that torchrun started."""

from __future__ import annotations

import os

from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup

STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""The variable of the environment that `torchrun` sets and nothing else."""


def join_processes() -> ProcessGroup:
    """Return the processes that `torchrun` started with this one, once all are there; without it, this one alone.

    Raises:
        ProcessesError: Where they do not find each other.
    """
    if STARTED_BY_TORCHRUN not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return SINGLE_PROCESS
    from experiment_runner.distributed.torch_process_group import TorchProcessGroup

    return TorchProcessGroup()
