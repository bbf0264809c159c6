"""The number of processes that unfinished runs began with, and the command to resume with as many."""

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
    """Find out how many processes each unfinished run began with.

    Args:
        started: Processes that the command was started with.
        experiments: The experiment list.
        output: The output folder of the command.
        retrain: Whether finished runs are to be trained again, which resumes only unfinished retrainings.
    """
    begun: dict[tuple[str, int], int] = {}
    for config in experiments:
        for seed in config.seeds:
            folder = RunFolder(output, config, seed)
            count = folder.begun_processes if not retrain or folder.is_being_replaced else None
            if count is not None:
                begun[config.name, seed] = count
    return ProcessCounts(started, begun)


def warn_of_other_count(runs: Iterable[str], count: int, retrain: bool) -> str:
    """Return the check's message on unfinished runs that need a different number of processes than was started."""
    arguments = ["--retrain"] if retrain else []
    if count > 1:
        command = torchrun_command(count, "main.py", arguments, RUN_OPTIONS)
    else:
        command = script_command("main.py", arguments, RUN_OPTIONS)
    processes = f"{count} process{'es' * (count > 1)}"
    return f"{', '.join(runs)}: trained with {processes} so far: resume with `{command}`"
