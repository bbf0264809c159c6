"""`main.py --check`: reports everything known before training, with all problems; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiment_runner.data.experiment_data import ExperimentData
from experiment_runner.data.preparation import PreparedExperiment, check_recordings, show_plan
from experiment_runner.distributed.process_counts import ProcessCounts
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device_facts import DeviceFacts, DeviceSurvey
from experiment_runner.runtime.precision import PrecisionError, resolve_precision
from experiment_runner.runtime.program_version import describe_other_programs
from experiment_runner.setup_checks import check_setup
from experiment_runner.storage.begun_processes import count_processes, warn_of_other_count
from experiment_runner.storage.checkpoints import CheckpointError
from experiment_runner.storage.environment import run_environment
from experiment_runner.storage.run_decisions import RESUMED, decide_finished, decide_unfinished
from experiment_runner.storage.run_folder import RunError, RunFolder
from utils import ConfigurationError, Plan, print_error


def check_plan(
    plan: Plan,
    device: DeviceSurvey,
    output: Path,
    retrain: bool,
    problems: Iterable[str],
    console: Console,
    started: int = 1,
) -> bool:
    """Check a list, and show what would be trained; problems are printed as soon as they are known.

    Args:
        plan: The experiment list.
        device: Device that it will run on.
        output: The output folder of the command.
        retrain: Whether finished runs are to be trained again.
        problems: Problems already found.
        console: Where everything is shown.
        started: Processes that the command was started with; unfinished runs count with their own number.

    Returns:
        Whether all is well.

    Raises:
        ConfigurationError: If recordings or runs have problems; it lists them.
    """
    counts = count_processes(started, plan.experiments, output, retrain)
    setup = check_setup(plan, device.facts, counts)
    early = [*problems, *setup.problems]
    if early:  # print these now: decoding the recordings below may take minutes
        print_error(ConfigurationError(early))
    if setup.experiments:
        show_plan(setup.experiments, console)
    console.line(device.note)
    recordings = check_recordings(setup.experiments, console, counts)
    unsaid = [problem for problem in recordings.problems if not any(line.endswith(problem) for line in early)]
    runs = ExpectedRuns(output, device.facts, retrain, console, counts)
    for experiment in setup.experiments:
        runs.add(experiment, recordings.data.get(experiment.config.name))
    if runs.rows:
        title = "Runs, once all problems are corrected" if early else "Runs"
        console.table(title, ("experiment", "seed", "training"), runs.rows, numeric=range(1, 2), keys=2, prose=[2])
    console.warn(*(warn_of_other_count(names, count, retrain) for count, names in runs.others.items()))
    _show_warnings(setup.experiments, output, retrain, console)
    if unsaid or runs.problems:
        raise ConfigurationError([*unsaid, *runs.problems])
    return not early


@dataclass(frozen=True)
class ExpectedRuns:
    """What training would do with each run, decided just as training does.

    Attributes:
        output: The output folder.
        device: Device that they would be trained on; None if unknown.
        retrain: Whether finished runs are to be trained again.
        console: Where damaged checkpoints are reported.
        counts: Numbers of processes that would train them.
        rows: Experiment, seed and what will happen to the run.
        problems: Why runs are refused.
        others: Runs that will resume with a different number of processes than was started, by that number.
    """

    output: Path
    device: DeviceFacts | None
    retrain: bool
    console: Console
    counts: ProcessCounts
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: dict[int, list[str]] = field(default_factory=dict)

    def add(self, experiment: PreparedExperiment, checked: ExperimentData | None) -> None:
        """Decide what will happen to the runs of an experiment.

        Args:
            experiment: The experiment.
            checked: Its data; None if its recordings are not usable.
        """
        for seed in experiment.config.seeds:
            name, folder = experiment.config.name, RunFolder(self.output, experiment.config, seed)
            ranks = self.counts.of_run(name, seed)
            try:
                text = self._expect(experiment, folder, checked, ranks)
            except (RunError, CheckpointError) as error:
                text = "refused"
                self.problems.append(f"{name} seed {seed}: {error}")
            if ranks != self.counts.started and text.startswith(RESUMED):
                self.others.setdefault(ranks, []).append(f"{name} seed {seed}")
            self.rows.append((name, str(seed), text))

    def _expect(
        self, experiment: PreparedExperiment, folder: RunFolder, checked: ExperimentData | None, ranks: int
    ) -> str:
        """Describe what will happen to one run."""
        folder.refuse_links()
        decision = decide_finished(folder, experiment.data, self.retrain)
        if decision.is_finished:
            return decision.describe(self.retrain)
        if checked is None:
            return "refused because of its recordings"
        config, is_gpu = experiment.config, self.device is None or self.device.gpu is not None
        environment = run_environment(config, checked, _precision_of(config.amp, self.device), is_gpu, ranks)
        is_there = folder.is_finished
        decision = decide_unfinished(folder, checked, environment, self.retrain, self.console)
        if decision.warning:
            self.console.warn(f"{config.name} seed {folder.seed}: {decision.warning}")
        return decision.describe(self.retrain and is_there)


def _precision_of(amp: str, device: DeviceFacts | None) -> str | None:
    """Return the reason for a precision; None if it is unknown or already reported as a problem."""
    if device is None:
        return None
    try:
        return resolve_precision(amp, device).reason
    except PrecisionError:
        return None


def _show_warnings(experiments: Sequence[PreparedExperiment], output: Path, retrain: bool, console: Console) -> None:
    untested = [experiment.config for experiment in experiments if not experiment.data.tests]
    nothing = "has no test split with labels in use; --test evaluates nothing"
    console.warn(*(f"{config.name}: {config.corpus} {nothing}" for config in untested))
    folders = [RunFolder(output, e.config, seed) for e in experiments for seed in e.config.seeds]
    runs = [(f"{folder.config.name} seed {folder.seed}", folder.path) for folder in folders if folder.holds_training]
    console.warn(None if retrain else describe_other_programs(runs))
