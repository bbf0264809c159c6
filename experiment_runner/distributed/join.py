"""Joins the processes that torchrun started."""

from __future__ import annotations

import os

from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup

STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that only `torchrun` sets."""


def join_processes() -> ProcessGroup:
    """Return the group of processes that `torchrun` started, once all have joined; without it, just this one.

    Raises:
        ProcessesError: If they do not find each other.
    """
    if STARTED_BY_TORCHRUN not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return SINGLE_PROCESS
    from experiment_runner.distributed.torch_process_group import TorchProcessGroup

    return TorchProcessGroup()
