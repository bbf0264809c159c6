"""Problems that keep a list from being run, found before training; training and `--check` call the same function.

A new check is a function from experiments to sentences, and a line in `check_setup`. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from experiment_runner.data.preparation import PreparedExperiment, prepare
from experiment_runner.distributed.process_counts import ProcessCounts
from experiment_runner.runtime.device_facts import DeviceFacts
from experiment_runner.runtime.precision import PrecisionError, resolve_precision
from utils.config.loading import Plan
from utils.errors import ConfigurationError


class Setup(NamedTuple):
    """A checked experiment list.

    Attributes:
        experiments: Experiments whose data is present.
        problems: Reasons why the list cannot be run; empty if it can.
    """

    experiments: list[PreparedExperiment]
    problems: list[str]

    def or_refuse(self) -> list[PreparedExperiment]:
        """Return the experiments.

        Raises:
            ConfigurationError: If there are problems; it lists them all.
        """
        if self.problems:
            raise ConfigurationError(self.problems)
        return self.experiments


def check_setup(plan: Plan, device: DeviceFacts | None, counts: ProcessCounts, for_training: bool = True) -> Setup:
    """Read labels, choose classes and rows, and find everything that keeps the list from being run.

    Args:
        plan: The experiment list.
        device: Device that it will run on; None if unknown, in which case the device is not checked.
        counts: Numbers of processes that run it together.
        for_training: Whether it will be trained, which needs upstreams and noise to be present.
    """
    prepared = prepare(plan, for_training, counts)
    problems = list(prepared.problems)
    if device is not None:
        problems += precision_problems(prepared.experiments, device)
    problems += process_problems(prepared.experiments, counts)
    return Setup(prepared.experiments, problems)


def precision_problems(experiments: Iterable[PreparedExperiment], device: DeviceFacts) -> list[str]:
    """Name every experiment whose `amp` the device does not support."""
    problems = []
    for experiment in experiments:
        try:
            resolve_precision(experiment.config.amp, device)
        except PrecisionError as error:
            problems.append(f"{experiment.config.name}: {error}")
    return problems


def process_problems(experiments: Iterable[PreparedExperiment], counts: ProcessCounts) -> list[str]:
    """Name every experiment that has fewer training utterances than there are processes."""
    return [
        f"{e.config.name}: {len(e.data.train)} training utterances are too few for {counts.of(e.config)} processes; "
        "start fewer processes"
        for e in experiments
        if len(e.data.train) < counts.of(e.config)
    ]
