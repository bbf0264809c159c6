"""How many processes half-done runs were begun with, and how to go on with as many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from experiment_runner.distributed.process_counts import ProcessCounts
from experiment_runner.storage.run_folder import RunFolder
from utils.commands import RUN_OPTIONS, script_command, torchrun_command
from utils.config.schema import ExperimentConfig


def count_processes(
    started: int, experiments: Iterable[ExperimentConfig], output: Path, retrain: bool
) -> ProcessCounts:
    """Find out which half-done runs were begun with how many processes.

    Args:
        started: How many the command was started with.
        experiments: The list.
        output: The output folder of the command.
        retrain: Whether finished runs are to be trained again, which goes on with half-done retrainings alone.
    """
    begun: dict[tuple[str, int], int] = {}
    for config in experiments:
        for seed in config.seeds:
            folder = RunFolder(output, config, seed)
            count = folder.begun_processes if not retrain or folder.is_being_replaced else None
            if count is not None:
                begun[config.name, seed] = count
    return ProcessCounts(started, begun)


def tell_other_count(runs: Iterable[str], count: int, retrain: bool) -> str:
    """Return what the check says of half-done runs that need another number of processes than it was started with."""
    arguments = ["--retrain"] if retrain else []
    if count > 1:
        command = torchrun_command(count, "main.py", arguments, RUN_OPTIONS)
    else:
        command = script_command("main.py", arguments, RUN_OPTIONS)
    processes = f"{count} process{'es' * (count > 1)}"
    return f"{', '.join(runs)}: trained with {processes} so far: go on with `{command}`"
